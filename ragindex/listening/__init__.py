"""What servers over HTTP have in common: the socket, the end in good order. Importing this needs no extra."""

from ragindex.listening.sockets import address_of, is_loopback, listen

__all__ = ["address_of", "is_loopback", "listen"]
