"""A TCP proxy between a program and a SAM bridge, for cutting connections while both ends live on. usage: proxy.py HOST:PORT

Prints "PORT <port>" of 127.0.0.1. A line "cut SECONDS" of standard input ends the control connections (those that have created
a session) and nothing else, "CUT <number of them>" being the answer; connections that come within SECONDS after it are ended at
once. Ends with its standard input.
"""

import os
import re
import socket
import sys
import threading
import time

lock = threading.Lock()
controls = set()
closed_until = 0.0


def end(pair):
    for side in pair:
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def carry(source, target, pair, watched):
    """Moves bytes until the end of one of the two. What is watched may say that it creates a session."""
    head = b""
    try:
        while data := source.recv(65536):
            if watched and len(head) < 4096:
                head += data
                if re.search(rb"^SESSION CREATE ", head, re.M):
                    with lock:
                        controls.add(pair)
            target.sendall(data)
    except OSError:
        pass
    with lock:
        controls.discard(pair)
    end(pair)


def serve(program, address):
    try:
        bridge = socket.create_connection(address)
    except OSError:
        program.close()
        return
    pair = (program, bridge)
    for side in pair:
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=carry, args=(bridge, program, pair, False), daemon=True)
    back.start()
    carry(program, bridge, pair, True)
    back.join()
    program.close()
    bridge.close()


def listen(listener, address):
    while True:
        program = listener.accept()[0]
        if time.monotonic() < closed_until:
            program.close()
        else:
            threading.Thread(target=serve, args=(program, address), daemon=True).start()


def main():
    global closed_until
    host, port = sys.argv[1].rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print("PORT %d" % listener.getsockname()[1], flush=True)
    threading.Thread(target=listen, args=(listener, (host, int(port))), daemon=True).start()
    for line in sys.stdin:
        closed_until = time.monotonic() + float(line.removeprefix("cut "))
        with lock:
            pairs = list(controls)
            controls.clear()
        for pair in pairs:
            end(pair)
        print("CUT %d" % len(pairs), flush=True)
    os._exit(0)


main()
