"""An OMEMO client without a network, for tests: Oldmemo and Twomemo behind one line of JSON per call.

Reads requests from standard input and answers each on standard output. Elements travel as XML
text. Everything is kept in memory and ends with the process.

  {"op": "start", "jid": J}                            -> {"device": ID}
  {"op": "publish", "namespace": N}                    -> {"devices": XML, "bundle": XML}
  {"op": "meet", "namespace": N, "jid": J, "devices": XML, "bundles": {ID: XML}}  -> {}
  {"op": "encrypt", "namespace": N, "jid": J, "text": T}    -> {"message": XML}
  {"op": "decrypt", "namespace": N, "jid": J, "message": XML} -> {"text": T or null}

Every answer also has "sent": the empty messages that the client sent by itself meanwhile. A
request that fails is answered with {"error": NAME}.
"""

import asyncio
import json
import sys
import xml.etree.ElementTree as ET
from datetime import datetime, timezone

import oldmemo
import oldmemo.etree
import omemo
import twomemo
import twomemo.etree

OLD = oldmemo.oldmemo.NAMESPACE
NEW = twomemo.twomemo.NAMESPACE
SCE = "urn:xmpp:sce:1"
CLIENT = "jabber:client"


class Memory(omemo.Storage):
    """A store in memory. What it gives out are copies."""

    def __init__(self):
        super().__init__(disable_cache=True)
        self.values = {}

    async def _load(self, key):
        if key in self.values:
            return omemo.Just(json.loads(self.values[key]))
        return omemo.Nothing()

    async def _store(self, key, value):
        self.values[key] = json.dumps(value)

    async def _delete(self, key):
        self.values.pop(key, None)


class Client:
    """One account with one device, and what it has seen of others."""

    def __init__(self, jid):
        self.jid = jid
        self.manager = None
        self.published = {}
        self.bundles = {}
        self.device_lists = {}
        self.sent = []

    async def start(self):
        client = self

        class Manager(omemo.SessionManager):
            """The session manager with the network replaced by dictionaries."""

            @staticmethod
            async def _upload_bundle(bundle):
                client.published[bundle.namespace] = bundle

            @staticmethod
            async def _download_bundle(namespace, bare_jid, device_id):
                try:
                    return client.bundles[namespace, bare_jid, device_id]
                except KeyError as error:
                    raise omemo.BundleNotFound() from error

            @staticmethod
            async def _delete_bundle(namespace, device_id):
                client.published.pop(namespace, None)

            @staticmethod
            async def _upload_device_list(namespace, device_list):
                client.device_lists[namespace, client.jid] = device_list

            @staticmethod
            async def _download_device_list(namespace, bare_jid):
                return client.device_lists.get((namespace, bare_jid), {})

            async def _evaluate_custom_trust_level(self, device):
                return omemo.TrustLevel.TRUSTED

            async def _make_trust_decision(self, undecided, identifier):
                raise NotImplementedError("every device is trusted")

            @staticmethod
            async def _send_message(message, bare_jid):
                client.sent.append(serialize(message))

        storage = Memory()
        backends = [twomemo.Twomemo(storage), oldmemo.Oldmemo(storage)]
        self.manager = await Manager.create(backends, storage, self.jid, None, "blind")
        # Until then it defers its answers.
        await self.manager.after_history_sync()
        own, _ = await self.manager.get_own_device_information()
        return {"device": own.device_id}

    async def publish(self, namespace):
        module = etree_of(namespace)
        devices = module.serialize_device_list(self.device_lists[namespace, self.jid])
        bundle = module.serialize_bundle(self.published[namespace])
        return {"devices": to_text(devices), "bundle": to_text(bundle)}

    async def meet(self, namespace, jid, devices, bundles):
        module = etree_of(namespace)
        for device, bundle in bundles.items():
            parsed = module.parse_bundle(ET.fromstring(bundle), jid, int(device))
            self.bundles[namespace, jid, int(device)] = parsed
        device_list = module.parse_device_list(ET.fromstring(devices))
        self.device_lists[namespace, jid] = device_list
        await self.manager.update_device_list(namespace, jid, device_list)
        return {}

    async def encrypt(self, namespace, jid, text):
        plaintext = text.encode() if namespace == OLD else envelope(text, self.jid, jid)
        messages, errors = await self.manager.encrypt(
            frozenset({jid}), {namespace: plaintext}, [namespace]
        )
        if errors:
            raise RuntimeError("not every device could be encrypted to")
        (message,) = messages.keys()
        return {"message": serialize(message)}

    async def decrypt(self, namespace, jid, message):
        element = ET.fromstring(message)
        if namespace == OLD:
            parsed = await oldmemo.etree.parse_message(element, jid, self.jid, self.manager)
        else:
            parsed = twomemo.etree.parse_message(element, jid)
        plaintext, _device, _key = await self.manager.decrypt(parsed)
        if plaintext is None:
            return {"text": None}
        return {"text": plaintext.decode() if namespace == OLD else open_envelope(plaintext, jid)}


def etree_of(namespace):
    return oldmemo.etree if namespace == OLD else twomemo.etree


def serialize(message):
    return to_text(etree_of(message.namespace).serialize_message(message))


def to_text(element):
    return ET.tostring(element, encoding="unicode")


def envelope(text, sender, receiver):
    root = ET.Element(f"{{{SCE}}}envelope")
    content = ET.SubElement(root, f"{{{SCE}}}content")
    ET.SubElement(content, f"{{{CLIENT}}}body").text = text
    ET.SubElement(root, f"{{{SCE}}}rpad").text = "x" * (len(text) % 7)
    stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ET.SubElement(root, f"{{{SCE}}}time", stamp=stamp)
    ET.SubElement(root, f"{{{SCE}}}from", jid=sender)
    ET.SubElement(root, f"{{{SCE}}}to", jid=receiver)
    return ET.tostring(root)


def open_envelope(plaintext, sender):
    root = ET.fromstring(plaintext)
    if root.find(f"{{{SCE}}}rpad") is None or root.find(f"{{{SCE}}}from").get("jid") != sender:
        raise ValueError("the envelope's affix elements do not fit")
    return root.find(f"{{{SCE}}}content").find(f"{{{CLIENT}}}body").text


async def answer(client, request):
    operation = request.pop("op")
    if operation not in ("publish", "meet", "encrypt", "decrypt"):
        raise ValueError(f"unknown operation {operation}")
    return await getattr(client, operation)(**request)


async def main():
    client = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "start":
                client = Client(request["jid"])
                reply = await client.start()
            else:
                reply = await answer(client, request)
        except Exception as error:  # The caller decides what an error means.
            reply = {"error": type(error).__name__, "detail": str(error)}
        sent, client.sent = client.sent, []
        print(json.dumps({**reply, "sent": sent}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
