"""A server on a recording, and windows on it: WebSocket (RFC 6455) over a plain socket, so that nothing has to be installed."""
import atexit
import base64
import json
import os
import re
import select
import socket
import struct
import subprocess
import time

PATIENCE = 60


class Server:
    def __init__(self, program, trace, *options, env=None):
        self.process = subprocess.Popen([program, "serve", "--tunnel", "127.0.0.1:0", *options, trace], stdout=subprocess.PIPE,
                                        env=env, text=True)
        atexit.register(self.process.kill)
        line = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+)/index.html", line).group(1))

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)


class Window:
    """Messages that came and were not yet looked for are kept, in order."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.bytes = b""
        self.messages = []
        while b"\r\n\r\n" not in self.bytes:
            self.bytes += self.socket.recv(4096)
        self.bytes = self.bytes.split(b"\r\n\r\n", 1)[1]

    def send(self, message):
        data = json.dumps(message).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self.socket.sendall(b"\x81" + size + b"\0\0\0\0" + data)  # a mask of zeros

    def frame(self):
        """The next whole message within self.bytes, or None."""
        b = self.bytes
        if len(b) < 2:
            return None
        size, head = b[1], 2
        if size == 126:
            size, head = int.from_bytes(b[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(b[2:10], "big"), 10
        if len(b) < head or len(b) < head + size:
            return None
        self.bytes = b[head + size:]
        return b[head:head + size] if b[0] & 15 == 1 else b"{}"

    def pump(self, seconds):
        """Takes what comes within so many seconds."""
        if select.select([self.socket], [], [], seconds)[0]:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the server has closed the connection")
            self.bytes += data
        while (data := self.frame()) is not None:
            self.messages.append(json.loads(data))

    def wait(self, what, wanted, seconds=PATIENCE):
        """The first message that is wanted; it and those before it are gone then."""
        end = time.monotonic() + seconds
        while True:
            for i, m in enumerate(self.messages):
                if wanted(m):
                    del self.messages[:i + 1]
                    return m
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come; {self.messages[-5:]}")
            self.pump(1)


class Gdb:
    """A gdb in a window; text: what its terminal has shown, without escapes."""

    def __init__(self, window, number, focus, size=(100, 40), take=True):
        self.window, self.number, self.take = window, number, take
        self.raw, self.seen, self.moved, self.closed, self.errors = b"", 0, [], None, []
        window.send({"gdb": number, "open": {"focus": focus, "size": size}})

    def say(self, **message):
        self.window.send({"gdb": self.number, **message})

    def type(self, text):
        self.say(input=text)

    def pump(self, seconds=1):
        self.window.pump(seconds)
        rest = []
        for m in self.window.messages:
            if m.get("gdb") != self.number:
                rest.append(m)
            elif "output" in m:
                data = bytes.fromhex(m["output"])
                self.raw += data
                if self.take:
                    self.say(taken=len(data))
            elif "focus" in m:
                self.moved.append(m["focus"])
            elif "closed" in m:
                self.closed = m["closed"]
            elif "error" in m:
                self.errors.append(m["error"])
        self.window.messages = rest

    @property
    def text(self):
        text = self.raw.decode(errors="replace")
        text = re.sub(r"[^\n]*\n\x1b\[A\x1b\[2K|[^\n]*\r\x1b\[K", "", text.replace("\r\n", "\n"))  # what was erased
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", text)

    def until(self, what, condition, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or self.closed:
                raise TimeoutError(f"{what}; the terminal: {self.text[self.seen:][-2000:]!r}; moved {self.moved[-3:]}; closed {self.closed}; errors {self.errors}")
            self.pump(0.2)

    def see(self, pattern):
        """Waits for it in what was shown since it was last looked at; gives the match."""
        found = []

        def look():
            found[:] = [m] if (m := re.search(pattern, self.text[self.seen:], re.M)) else []
            return found
        self.until(f"'{pattern}' was not shown", look)
        self.seen += found[0].end()
        return found[0]

    def ask(self, command, pattern):
        """A command, and what it shows before the next prompt."""
        self.type(command + "\n")
        self.see(re.escape(command) + "\n")
        return self.see(pattern)
