"""Pretrained weights: records, where they come from, downloads, and the models of timm and torchvision."""
