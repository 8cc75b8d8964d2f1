"""Public data sets, and generated ones like them."""
