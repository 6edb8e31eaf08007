"""A TCP server that answers as examples-c/server.c does, but everybody at the same time. Who says "stay" is kept.

Prints "PORT <port>" of 127.0.0.1.
"""

import socket
import threading
import time


def serve(peer):
    try:
        message = peer.recv(4096)
        if message.startswith(b"stay\n"):
            peer.sendall(b"staying\n")
            while peer.recv(4096):
                pass
        elif message:
            peer.sendall(b"Hello, how are you?")
            # Some versions of i2pd lose what is written right before the end.
            time.sleep(1)
    except OSError:
        pass
    peer.close()


listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print("PORT %d" % listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
