"""How pie-nano was made; not part of an installation."""
