"""The one training loop and what it is made of: recipes, optimizers, augmentation, checkpoints, many processes."""
