"""What trains after a step: the recipe, the teacher, the zeros that are held."""
