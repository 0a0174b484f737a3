"""The engine: torch and nothing else. Randomness is always an explicit generator."""
