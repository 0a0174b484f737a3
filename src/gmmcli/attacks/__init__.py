"""Adversarial attacks on a model: tensors in, what they did to each image out."""
