"""An OMEMO client driven by lines of JSON: the independent person on the XMPP side of the tests.

A command is one line {"id": 1, "do": "send", ...}; its answer is {"event": "done", "id": 1, "value": {...}} or
{"event": "failed", "id": 1, "error": "..."}. Everything the client sees arrives as a line of its own: `ready`, `message`,
`undecryptable`, `empty`, `receipt`, `bounced`, `asked`, `subscribed`, `announced`. The client ends when its input ends.

slixmpp-omemo speaks legacy OMEMO only; for `urn:xmpp:omemo:2` this file adds the XEP-0420 envelope around the same library.
"""

import argparse
import asyncio
import base64
import datetime
import json
import os
import secrets
import ssl
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import oldmemo
import oldmemo.etree
import omemo
import twomemo
import twomemo.etree
from omemo.storage import Just, Nothing, Storage
from slixmpp.clientxmpp import ClientXMPP
from slixmpp.exceptions import IqError
from slixmpp.jid import JID
from slixmpp.plugins import register_plugin
from slixmpp.xmlstream.handler import CoroutineCallback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp_omemo import XEP_0384

NAMESPACES = {"legacy": "eu.siacs.conversations.axolotl", "omemo2": "urn:xmpp:omemo:2"}
CODECS = {NAMESPACES["legacy"]: oldmemo.etree, NAMESPACES["omemo2"]: twomemo.etree}
FALLBACK = "This message is encrypted with OMEMO."
SCE = "urn:xmpp:sce:1"

warnings.simplefilter("ignore")


def say(event, **fields):
    """Prints one event for the test to read."""
    print(json.dumps({"event": event, **fields}), flush=True)


class FileStorage(Storage):
    """The library's key-value storage in one JSON file."""

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        self.values = json.loads(self.path.read_text()) if self.path.exists() else {}

    async def _load(self, key):
        return Just(self.values[key]) if key in self.values else Nothing()

    async def _store(self, key, value):
        self.values[key] = value
        self.write()

    async def _delete(self, key):
        self.values.pop(key, None)
        self.write()

    def write(self):
        """In one step: the client may be killed at any moment and come back."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.values))
        new.replace(self.path)


class Omemo(XEP_0384):
    """Blind trust before verification, as most clients have it; a manual question is answered with yes."""

    def plugin_init(self):
        self.file_storage = FileStorage(OPTIONS.store)
        super().plugin_init()

    @property
    def storage(self):
        return self.file_storage

    @property
    def _btbv_enabled(self):
        return True

    async def _prompt_manual_trust(self, manually_trusted, identifier):
        manager = await self.get_session_manager()
        for device in manually_trusted:
            await manager.set_trust(device.bare_jid, device.identity_key, "TRUSTED")

    async def _on_device_list_update(self, msg):
        try:
            async with self.xmpp.in_order:
                await super()._on_device_list_update(msg)
            say("announced", sender=msg["from"].bare, node=msg["pubsub_event"]["items"]["node"])
        except omemo.UnknownNamespace:
            pass  # a namespace this client was told not to speak


def printed(manager, device):
    """The fingerprint of a device, as OMEMO clients print it."""
    return " ".join(manager.format_identity_key(device.identity_key))


def reinstalled(manager, device_id, calls):
    """A session manager that comes up under `device_id` although the account's list already names that device."""

    class Reinstalled(manager):
        DEVICE_ID_MIN = device_id
        DEVICE_ID_MAX = device_id + 1
        remaining = calls

        @staticmethod
        async def _download_device_list(namespace, bare_jid):
            if Reinstalled.remaining > 0:
                Reinstalled.remaining -= 1
                return {}
            return await manager._download_device_list(namespace, bare_jid)

    return Reinstalled


def narrow_session_manager():
    """Makes the library load only the namespaces (and, if asked, the device id) of the command line."""
    original = omemo.SessionManager.create.__func__

    async def create(cls, backends, *args, **kwargs):
        wanted = [backend for backend in backends if backend.namespace in SPOKEN]
        if OPTIONS.device_id is not None:
            cls = reinstalled(cls, OPTIONS.device_id, len(wanted))
        return await original(cls, wanted, *args, **kwargs)

    omemo.SessionManager.create = classmethod(create)


def seal_envelope(body, sender, recipient):
    """The XEP-0420 envelope of a chat message."""
    envelope = ET.Element(f"{{{SCE}}}envelope")
    content = ET.SubElement(envelope, f"{{{SCE}}}content")
    ET.SubElement(content, "{jabber:client}body").text = body
    padding = secrets.token_bytes(secrets.randbelow(150))
    ET.SubElement(envelope, f"{{{SCE}}}rpad").text = base64.b64encode(padding).decode()
    now = datetime.datetime.now(datetime.timezone.utc)
    ET.SubElement(envelope, f"{{{SCE}}}time", {"stamp": now.strftime("%Y-%m-%dT%H:%M:%SZ")})
    ET.SubElement(envelope, f"{{{SCE}}}to", {"jid": recipient})
    ET.SubElement(envelope, f"{{{SCE}}}from", {"jid": sender})
    return ET.tostring(envelope)


def open_envelope(plaintext, sender):
    """The body inside an envelope; refuses one without padding or from somebody else."""
    envelope = ET.fromstring(plaintext)
    if envelope.tag != f"{{{SCE}}}envelope" or envelope.find(f"{{{SCE}}}rpad") is None:
        raise ValueError("not an XEP-0420 envelope with padding")
    claimed = envelope.find(f"{{{SCE}}}from")
    if claimed is not None and JID(claimed.get("jid")).bare != sender:
        raise ValueError("the envelope names another sender")
    return envelope.findtext(f"{{{SCE}}}content/{{jabber:client}}body")


class Peer(ClientXMPP):
    """One device of one person."""

    def __init__(self):
        super().__init__(OPTIONS.jid, os.environ["XMPP_PEER_PASSWORD"])
        self.sent = {}
        # Messages and device lists are taken in the order in which they came, also where one needs an answer from the
        # network first, and nothing is encrypted meanwhile: the library learns of devices in several steps.
        self.in_order = asyncio.Lock()
        self.enable_plaintext = True
        self["feature_mechanisms"].unencrypted_scram = True
        self.ssl_context.check_hostname = False
        self.ssl_context.verify_mode = ssl.CERT_NONE
        for plugin in ("xep_0004", "xep_0030", "xep_0050", "xep_0060", "xep_0163", "xep_0184", "xep_0199", "xep_0280", "xep_0380"):
            self.register_plugin(plugin)
        if SPOKEN:
            self.register_plugin("xep_0384", module=sys.modules[__name__])
        self.add_event_handler("session_start", self.on_start)
        self.add_event_handler("message", self.on_message)
        # slixmpp calls only stanzas with a body messages.
        for namespace in SPOKEN:
            matcher = MatchXPath(f"{{jabber:client}}message/{{{namespace}}}encrypted")
            self.register_handler(CoroutineCallback(f"Empty in {namespace}", matcher, self.on_encrypted))
        self.add_event_handler("message_error", self.on_bounce)
        self.add_event_handler("receipt_received", lambda m: say("receipt", of=m["receipt"], sender=m["from"].bare))
        self.add_event_handler("failed_auth", lambda _: say("refused"))
        self.add_event_handler("presence_subscribe", lambda p: say("asked", sender=p["from"].bare))
        self.add_event_handler("presence_subscribed", lambda p: say("subscribed", sender=p["from"].bare))

    async def on_start(self, _):
        self.send_presence()
        await self.get_roster()
        device, fingerprint = None, None
        if SPOKEN:
            manager = await self["xep_0384"].get_session_manager()
            own, _others = await manager.get_own_device_information()
            device, fingerprint = own.device_id, printed(manager, own)
        say("ready", jid=self.boundjid.bare, full_jid=self.boundjid.full, device=device, fingerprint=fingerprint)
        self.reader = asyncio.ensure_future(self.obey())

    def on_bounce(self, stanza):
        say("bounced", of=stanza["id"], sender=stanza["from"].bare, condition=stanza["error"]["condition"])

    async def on_encrypted(self, stanza):
        if not stanza["body"]:
            await self.on_message(stanza)

    async def on_message(self, stanza):
        async with self.in_order:
            await self.read(stanza)

    async def read(self, stanza):
        if stanza["type"] not in ("chat", "normal"):
            return
        present = [n for n in NAMESPACES.values() if stanza.xml.find(f"{{{n}}}encrypted") is not None]
        readable = [n for n in present if n in SPOKEN]
        common = {"sender": stanza["from"].bare, "stanza_id": stanza["id"]}
        if not present:
            if stanza["body"]:
                say("message", body=stanza["body"], encrypted=False, **common)
            return
        try:
            if not readable:
                raise ValueError("encrypted in a namespace this client does not speak")
            await self.open(stanza, max(readable), common)
        except Exception as error:
            empty = all(stanza.xml.find(f"{{{n}}}encrypted/{{{n}}}payload") is None for n in present)
            say("undecryptable", error=f"{type(error).__name__}: {error}", namespaces=present, empty=empty, **common)

    async def open(self, stanza, namespace, common):
        """Decrypts one stanza and says what was in it. `max` of the two namespaces is omemo:2."""
        plugin, sender = self["xep_0384"], stanza["from"].bare
        manager = await plugin.get_session_manager()
        element = stanza.xml.find(f"{{{namespace}}}encrypted")
        if namespace == NAMESPACES["omemo2"]:
            message = twomemo.etree.parse_message(element, sender)
        else:
            message = await oldmemo.etree.parse_message(element, sender, self.boundjid.bare, manager)
        plaintext, device, _ = await manager.decrypt(message)
        if plaintext is None:
            say("empty", namespace=namespace, **common)
            return
        body = open_envelope(plaintext, sender) if namespace == NAMESPACES["omemo2"] else plaintext.decode()
        say(
            "message",
            body=body,
            encrypted=True,
            namespace=namespace,
            device=device.device_id,
            trust=device.trust_level_name,
            marked=stanza["eme"]["namespace"] == namespace,
            **common,
        )

    async def obey(self):
        """Carries out the commands, one after the other, until the input ends."""
        loop = asyncio.get_event_loop()
        reader = asyncio.StreamReader(limit=2**24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            try:
                value = await getattr(self, "do_" + command["do"])(command)
                say("done", id=command["id"], value=value)
            except Exception as error:
                say("failed", id=command["id"], error=f"{type(error).__name__}: {error}")
        os._exit(0)

    async def refresh(self, jid, force=False):
        """Loads the device lists of a contact, as a client does when a chat is opened."""
        plugin = self["xep_0384"]
        manager = await plugin.get_session_manager()
        roster = self.client_roster
        pushed = roster.has_jid(jid) and roster[jid]["subscription"] == "both"
        for namespace in SPOKEN:
            key = f"/slixmpp/subscribed/{jid}/{namespace}"
            known = (await plugin.storage.load_primitive(key, bool)).maybe(None)
            if not pushed and not known:
                await plugin._subscribe(namespace, JID(jid))
            if force or (not pushed and not known):
                try:
                    await manager.refresh_device_list(namespace, jid)
                except omemo.DeviceListDownloadFailed:
                    pass

    async def do_send(self, command):
        """Sends an encrypted message and says which id it went under."""
        async with self.in_order:
            return await self.encrypt_and_send(command)

    async def encrypt_and_send(self, command):
        to, body, namespace = JID(command["to"]), command["body"], NAMESPACES[command["namespace"]]
        await self.refresh(to.bare)
        plaintext = body.encode()
        if namespace == NAMESPACES["omemo2"]:
            plaintext = seal_envelope(body, self.boundjid.bare, to.bare)
        manager = await self["xep_0384"].get_session_manager()
        messages, errors = await manager.encrypt(
            frozenset({to.bare}), {namespace: plaintext}, backend_priority_order=[namespace]
        )
        stanza = self.make_message(mto=to, mbody=FALLBACK, mtype="chat")
        stanza.enable("store")
        stanza["request_receipt"] = True
        stanza["eme"]["namespace"] = namespace
        stanza["eme"]["name"] = "OMEMO"
        for message in messages:
            stanza.append(CODECS[namespace].serialize_message(message))
        self.sent[stanza["id"]] = stanza
        stanza.send()
        return {"stanza_id": stanza["id"], "problems": [type(error).__name__ for error in errors]}

    async def do_replace_sessions(self, command):
        """Begins new sessions with all devices of a contact: each costs it a prekey. A contact that is gone does not
        answer, and nothing has changed then."""
        manager = await self["xep_0384"].get_session_manager()
        for device in await manager.get_device_information(command["jid"]):
            await asyncio.wait_for(manager.replace_sessions(device), 3)

    async def do_send_again(self, command):
        """Sends the very same stanza again, as a client does for one it saw no answer to."""
        self.sent[command["stanza_id"]].send()

    async def do_send_plain(self, command):
        """Sends a message in the clear."""
        stanza = self.make_message(mto=JID(command["to"]), mbody=command["body"], mtype="chat")
        stanza["request_receipt"] = True
        self.sent[stanza["id"]] = stanza
        stanza.send()
        return {"stanza_id": stanza["id"]}

    async def do_send_xml(self, command):
        """Sends bytes as they are."""
        self.send_raw(command["xml"])

    async def do_devices(self, command):
        """The devices of a contact, freshly fetched."""
        async with self.in_order:
            await self.refresh(command["jid"], force=True)
            manager = await self["xep_0384"].get_session_manager()
            devices = await manager.get_device_information(command["jid"])
        return {
            "devices": [
                {"id": d.device_id, "namespaces": sorted(d.namespaces), "fingerprint": printed(manager, d)}
                for d in devices
            ]
        }

    async def do_leave_omemo(self, _command):
        """Takes this person's device lists away, as after leaving OMEMO."""
        for namespace in SPOKEN:
            node = "urn:xmpp:omemo:2:devices" if namespace == NAMESPACES["omemo2"] else f"{namespace}.devicelist"
            try:
                await self["xep_0060"].delete_node(self.boundjid.bare, node)
            except IqError:
                pass

    async def do_subscribe(self, command):
        """Asks for a contact's presence."""
        self.send_presence_subscription(pto=command["to"], ptype="subscribe")

    async def do_commands(self, command):
        """The ad-hoc commands that an address lists."""
        items = await self["xep_0050"].get_commands(command["jid"])
        return {"commands": [node for _jid, node, _name in items["disco_items"]["items"]]}

    async def do_command(self, command):
        """Runs an ad-hoc command to its end; where a form asks for a person, with this one."""
        to, node, adhoc = JID(command["jid"]), command["node"], self["xep_0050"]
        try:
            answer, people = (await adhoc.send_command(to, node))["command"], []
            if answer["status"] == "executing":
                people = [option["value"] for option in answer["form"].get_fields()["person"]["options"]]
                form = self["xep_0004"].make_form(ftype="submit")
                form.add_field(var="person", value=command["person"])
                session = answer["sessionid"]
                answer = await adhoc.send_command(to, node, action="complete", payload=form, sessionid=session)
                answer = answer["command"]
        except IqError as error:
            return {"refused": error.condition}
        lines = [text for _kind, text in answer["notes"]]
        for value in answer["form"].get_values().values():
            lines += [value] if isinstance(value, str) else value
        return {"status": answer["status"], "people": people, "text": "\n".join(lines)}

    async def do_disco(self, command):
        """What an address says about itself."""
        info = (await self["xep_0030"].get_info(jid=command["jid"]))["disco_info"]
        return {
            "features": sorted(info["features"]),
            "identities": sorted([category, kind] for category, kind, _lang, _name in info["identities"]),
        }


def options():
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jid", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--store", required=True)
    parser.add_argument("--namespaces", default="legacy,omemo2", help="comma list; empty for a client without OMEMO")
    parser.add_argument("--device-id", type=int, help="come up under this device id, with new keys")
    return parser.parse_args()


OPTIONS = options()
SPOKEN = [NAMESPACES[name] for name in OPTIONS.namespaces.split(",") if name]
register_plugin(Omemo, "xep_0384")
narrow_session_manager()
peer = Peer()
peer.connect("127.0.0.1", OPTIONS.port)
asyncio.get_event_loop().run_forever()
