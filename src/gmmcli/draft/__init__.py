"""Recipes for a user's own images."""
