"""python-socketio against the conformance server, by each transport, on one shard and on four."""

import asyncio
import unittest

import socketio

from support import TRANSPORTS, Client, start_conformance, until


class Matrix:
    """The checks; the classes at the end say for how many shards and which transport."""

    shards = 1
    transport = "polling"

    @classmethod
    def setUpClass(cls):
        cls.server = start_conformance(cls.shards)

    @classmethod
    def tearDownClass(cls):
        cls.server.remove()

    async def asyncSetUp(self):
        self.clients = []

    async def asyncTearDown(self):
        for client in self.clients:
            await client.close()

    async def client(self, **options):
        client = Client(self.server.url, TRANSPORTS[self.transport], **options)
        self.clients.append(client)
        return await client.connect()

    async def test_connects_and_receives_its_auth(self):
        client = await self.client(auth={"token": "123", "list": [1, None]})
        self.assertEqual(await client.next("auth"), [{"token": "123", "list": [1, None]}])
        expected = TRANSPORTS[self.transport][-1]
        self.assertEqual(client.io.transport(), expected)
        self.assertEqual(await client.ask("transport"), expected)

    async def test_events_and_acks_carry_json_and_unicode(self):
        client = await self.client()
        value = {"číslo": [1, -0.5, True, None, "🐎\u2028\u0000\x1e"], "": {"z": [], "a": {}}}
        await client.io.emit("message", (value, "two"))
        self.assertEqual(await client.next("message-back"), [value, "two"])
        self.assertEqual(await client.ask("message-with-ack", value), value)
        self.assertEqual(await client.ask("message-with-ack", ("a", 2)), ("a", 2))
        answers = await asyncio.gather(*(client.ask("message-with-ack", number) for number in range(50)))
        self.assertEqual(answers, list(range(50)))

    async def test_the_server_asks_for_acks(self):
        client = await self.client()
        client.io.on("emit-with-ack", lambda *args: client.events.append(("asked", list(args))) or (("answer", *args) if args[0] != "answer" else None))
        await client.io.emit("emit-with-ack", (1, "two"))
        await client.next("asked", 2)
        self.assertEqual(client.named("asked"), [[1, "two"], ["answer", 1, "two"]])

        async def silent(*_):
            await asyncio.sleep(1)

        client.io.on("no-reply", silent)
        await client.io.emit("ack-timeout", 60)
        self.assertEqual(await client.next("ack-timeout"), [True])
        client.io.on("no-reply", lambda *_: "here")
        await client.io.emit("ack-timeout", 15000)
        self.assertEqual(await client.next("ack-timeout", 2), [False])

    async def test_binary_up_to_the_limit(self):
        client = await self.client()
        small = bytes([0, 1, 30, 255])
        self.assertEqual(await client.ask("message-with-ack", {"nested": [small, {"b": small}]}), {"nested": [small, {"b": small}]})
        await client.io.emit("message", small)
        self.assertEqual(await client.next("message-back"), [small])
        # By polling the limit counts base64, which is a third longer.
        size = 740_000 if self.transport == "polling" else 1_000_000
        large = bytes(index * 7 % 251 for index in range(size))
        self.assertEqual(await client.ask("message-with-ack", large), large)

    async def test_messages_of_900_kb(self):
        client = await self.client()
        text = "0123456789" * 90_000
        self.assertEqual(await client.ask("message-with-ack", text), text)

    async def test_a_thousand_events_in_a_burst_stay_in_order(self):
        client = await self.client()
        for number in range(1000):
            await client.io.emit("message", number)
        await client.next("message-back", 1000)
        self.assertEqual(client.named("message-back"), [[number] for number in range(1000)])

    async def test_many_namespaces(self):
        names = ["/", "/custom"] + [f"/dyn-{number}" for number in range(20)]
        client = await self.client(namespaces=names)
        answers = await asyncio.gather(*(client.ask("message-with-ack", name, namespace=name) for name in names))
        self.assertEqual(answers, names)
        self.assertEqual(len(set(client.io.namespaces.values())), len(names))

    async def test_a_refused_namespace(self):
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await self.client(namespaces=["/nobody"])
        errors = []
        refused = Client(self.server.url, TRANSPORTS[self.transport], namespaces=["/reject"])
        refused.io.on("connect_error", errors.append, namespace="/reject")
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await refused.connect()
        self.assertEqual(errors, [{"message": "not authorized", "data": {"code": "E_AUTH", "status": 401}}])

    async def test_rooms(self):
        one, two, three = [await self.client() for _ in range(3)]
        for client in (one, two):
            self.assertEqual(await client.ask("join", "python"), "ok")
        await one.io.emit("in-room", ("python", "told", "everyone"))
        await one.io.emit("to-room", ("python", "told", "the others"))
        await two.next("told", 2)
        for client in (one, three):
            await client.ask("message-with-ack", "")
        self.assertEqual([one.named("told"), two.named("told"), three.named("told")], [[["everyone"]], [["everyone"], ["the others"]], []])
        await one.ask("leave", "python")
        self.assertEqual(await two.ask("fetch", "python"), [two.io.get_sid()])

    async def test_comes_back_after_a_restart(self):
        client = await self.client()
        first = client.io.get_sid()
        await asyncio.to_thread(self.server.restart)
        await until(lambda: client.connects >= 2 and client.io.connected, "the reconnect")
        self.assertNotEqual(client.io.get_sid(), first)
        self.assertEqual(await client.ask("message-with-ack", "again"), "again")


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for shards in (1, 4):
        for transport in TRANSPORTS:
            name = f"Conformance_{transport}_{shards}_shards"
            case = type(name, (Matrix, unittest.IsolatedAsyncioTestCase), {"shards": shards, "transport": transport})
            suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
