"""What a model's answers are worth: accuracy with intervals, calibration, mistakes, pictures."""
