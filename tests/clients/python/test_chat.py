"""python-socketio in the chat: by each transport, on one shard and on four."""

import unittest

import socketio

from support import TRANSPORTS, Client, start_chat, token


class Chat:
    """The checks; the classes at the end say for how many shards and which transport."""

    shards = 1
    transport = "polling"

    @classmethod
    def setUpClass(cls):
        cls.server = start_chat(cls.shards)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.remove()
        assert code == 0, f"the server ended with {code}"

    async def user(self, name):
        client = await Client(self.server.url, TRANSPORTS[self.transport], auth={"token": token(name)}).connect()
        self.addAsyncCleanup(client.close)
        return client

    async def test_two_users_exchange_messages_and_one_resumes(self):
        alice, bob = await self.user("alice"), await self.user("bob")
        self.assertEqual(await alice.ask("joinRoom", {"roomId": "python"}), {"ok": True, "roomId": "python", "seq": 0, "replayed": 0})
        await bob.ask("joinRoom", {"roomId": "python"})
        self.assertEqual(await alice.next("userJoined"), [{"roomId": "python", "userId": "bob"}])
        for number in range(1, 6):
            answer = await alice.ask("sendMessage", {"roomId": "python", "content": f"číslo {number} 🐎"})
            self.assertEqual((answer["ok"], answer["seq"]), (True, number))
        await bob.next("receiveMessage", 5)
        await alice.next("receiveMessage", 5)
        self.assertEqual(bob.named("receiveMessage"), alice.named("receiveMessage"))
        self.assertEqual([message["seq"] for (message,) in bob.named("receiveMessage")], [1, 2, 3, 4, 5])
        await bob.close()
        self.assertEqual(await alice.next("userLeft"), [{"roomId": "python", "userId": "bob"}])
        back = await self.user("bob")
        answer = await back.ask("joinRoom", {"roomId": "python", "lastSeq": 2})
        self.assertEqual((answer["recovered"], answer["replayed"]), (True, 3))
        await back.next("receiveMessage", 3)
        self.assertEqual(back.named("receiveMessage"), alice.named("receiveMessage")[2:])
        status, page = self.server.get("/api/messages?roomId=python&afterSeq=3", token("carol"))
        self.assertEqual((status, page["messages"]), (200, [message for (message,) in alice.named("receiveMessage")[3:]]))

    async def test_errors_have_codes(self):
        alice = await self.user("alice")
        answer = await alice.ask("sendMessage", {"roomId": "nowhere", "content": "x"})
        self.assertEqual((answer["ok"], answer["error"]["code"]), (False, "not_in_room"))
        await alice.io.emit("joinRoom", {"roomId": 5})
        (exception,) = await alice.next("exception")
        self.assertEqual((exception["event"], exception["error"]["code"]), ("joinRoom", "invalid_payload"))

    async def test_without_a_token_nobody_connects(self):
        errors = []
        stranger = Client(self.server.url, TRANSPORTS[self.transport], auth={"token": "nonsense"})
        stranger.io.on("connect_error", errors.append)
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await stranger.connect()
        self.assertEqual([error["data"]["code"] for error in errors], ["unauthorized"])


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for shards in (1, 4):
        for transport in TRANSPORTS:
            name = f"Chat_{transport}_{shards}_shards"
            case = type(name, (Chat, unittest.IsolatedAsyncioTestCase), {"shards": shards, "transport": transport})
            suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
