"""Recipes before they run: drafts, what is wrong with one, and what it will take."""
