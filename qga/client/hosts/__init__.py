"""What there is on a host: its guests, the ports that it gives them, what ails them."""
