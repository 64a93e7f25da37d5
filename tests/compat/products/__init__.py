"""One module for each product: the packages it needs, its application, and the checks that a client makes."""
