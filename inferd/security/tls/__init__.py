"""TLS: the server's certificates, and which port uses them."""
