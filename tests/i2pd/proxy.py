"""A TCP proxy between a program and a SAM bridge, for cutting connections while both ends live on. usage: proxy.py HOST:PORT

Prints "PORT <port>" of 127.0.0.1, and "PEER" whenever an accept has got its peer. A line "cut SECONDS" of standard input ends
the control connections (those that have created a session) and nothing else, "CUT <number of them>" being the answer;
connections that come within SECONDS after it are ended at once. Ends with its standard input.
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


def say(line):
    with lock:
        print(line, flush=True)


def end(pair):
    for side in pair:
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def carry(source, target, pair, seen):
    """Moves bytes until the end of one of the two, showing `seen` how each line begins, as far as it may be SAM's."""
    head = b""
    try:
        while data := source.recv(65536):
            if len(head) < 4096:
                head += data
                seen(head)
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
    accepts = threading.Event()
    told = threading.Event()

    def asked(head):
        if re.search(rb"^SESSION CREATE ", head, re.M):
            with lock:
                controls.add(pair)
        elif re.search(rb"^STREAM ACCEPT ", head, re.M):
            accepts.set()

    def answered(head):
        # Its destination, in base64, after the line that says that it waits.
        if accepts.is_set() and not told.is_set() and re.search(rb"^STREAM STATUS RESULT=OK.*\n[^ \n]{500}", head, re.M):
            told.set()
            say("PEER")

    back = threading.Thread(target=carry, args=(bridge, program, pair, answered), daemon=True)
    back.start()
    carry(program, bridge, pair, asked)
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
    say("PORT %d" % listener.getsockname()[1])
    threading.Thread(target=listen, args=(listener, (host, int(port))), daemon=True).start()
    for line in sys.stdin:
        closed_until = time.monotonic() + float(line.removeprefix("cut "))
        with lock:
            pairs = list(controls)
            controls.clear()
        for pair in pairs:
            end(pair)
        say("CUT %d" % len(pairs))
    os._exit(0)


main()
