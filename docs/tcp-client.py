#!/usr/bin/env python3
"""A client over plain TCP: python3 tcp-client.py HOST:PORT TOPIC

Joins the topic, pushes a text and a binary message, and prints what it hears. docs/PROTOCOL.md has the frames.
"""
import json, socket, struct, sys, threading, time

(host, port), topic = sys.argv[1].rsplit(":", 1), sys.argv[2]
stream = socket.create_connection((host, int(port)))
lock = threading.Lock()
def send(frame):  # a list is a text frame, bytes are a binary one
    data = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    with lock:
        stream.sendall(struct.pack(">I", len(data)) + data)

def push_bytes(ref, event, data):
    names = [name.encode() for name in ("1", ref, topic, event)]
    send(bytes([0, *map(len, names)]) + b"".join(names) + data)

def frames():
    reader = stream.makefile("rb")
    while prefix := reader.read(4):
        yield reader.read(struct.unpack(">I", prefix)[0])

def heartbeats():
    while True:
        time.sleep(25)
        send([None, "0", "phoenix", "heartbeat", {}])

send({"path": "/socket", "vsn": "2.0.0", "params": {"user_id": "python"}})
send(["1", "1", topic, "phx_join", {}])
send(["1", "2", topic, "message", {"text": "hello"}])
push_bytes("3", "sample", struct.pack(">d", 0.25))
threading.Thread(target=heartbeats, daemon=True).start()
for frame in frames():
    if frame[0] == 2:  # a binary broadcast: 2, len(topic), len(event), topic, event, data
        head = 3 + frame[1]
        print("bytes", frame[head : head + frame[2]].decode(), frame[head + frame[2] :].hex(), flush=True)
    else:
        print("text", frame.decode(), flush=True)
