"""Recipes, runs, grids, claims and tables: the paper's studies, from YAML to verdict."""
