# A chat client for the VM tests: says something, or waits for what others say.
#
#   chat URL TOKEN ROOM say TEXT...      sends each text, prints its number
#   chat URL TOKEN ROOM hear COUNT       prints the next COUNT messages, reconnecting as long as it takes
{
  writers,
  python3Packages,
}:
writers.writePython3Bin "chat"
  {
    libraries = [
      python3Packages.python-socketio
      python3Packages.requests
      python3Packages.websocket-client
    ];
  }
  ''
    import sys
    import time
    import socketio

    url, token, room, verb = sys.argv[1:5]
    heard = []
    last = [0]
    client = socketio.Client()


    @client.event
    def connect():
        ask = {"roomId": room}
        if last[0]:
            ask["lastSeq"] = last[0]
        client.emit("joinRoom", ask, callback=joined)


    def joined(answer):
        assert answer["ok"], answer
        last[0] = max(last[0], answer["seq"] or 0)
        print("joined", flush=True)


    @client.on("receiveMessage")
    def receive(message):
        last[0] = message["seq"]
        heard.append(message)
        print("heard", message["seq"], message["content"], flush=True)


    client.connect(url, auth={"token": token}, transports=["websocket"])
    if verb == "say":
        client.call("joinRoom", {"roomId": room})
        for text in sys.argv[5:]:
            said = client.call("sendMessage", {"roomId": room, "content": text})
            assert said["ok"], said
            print("said", said["seq"], flush=True)
    else:
        until = time.monotonic() + 120
        while len(heard) < int(sys.argv[5]):
            assert time.monotonic() < until, "nothing more is heard"
            time.sleep(0.05)
    client.disconnect()
  ''
