// Element Web's crypto (matrix-js-sdk over matrix-sdk-crypto) driven by lines of JSON: the person on the Matrix side.
//
// A command is one line {"id": 1, "do": "send", ...}; its answer is {"event": "done", "id": 1, "value": {...}} or
// {"event": "failed", "id": 1, "error": "..."}. Everything the client sees arrives as a line of its own: `ready`,
// `invited`, `membership`, `message`, `state`, `status`, and those of verification.mjs. The client ends when its input ends.
//
// Environment: ELEMENT_HOMESERVER, ELEMENT_USER, ELEMENT_PASSWORD.
import "fake-indexeddb/auto";
import readline from "node:readline";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import {
    AllDevicesIsolationMode,
    CryptoEvent,
    EventShieldColour,
    EventShieldReason,
    OnlySignedDevicesIsolationMode,
    decodeRecoveryKey,
} from "matrix-js-sdk/lib/crypto-api/index.js";
import { verifications } from "./verification.mjs";

const { ELEMENT_HOMESERVER: baseUrl, ELEMENT_USER: name, ELEMENT_PASSWORD: password } = process.env;
const MEGOLM = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
const SHOWN = new Set(["m.room.message", "m.room.encrypted", "m.reaction", "m.sticker"]);

logger.setLevel("silent");
for (const level of ["log", "info", "debug", "warn", "error", "trace"]) console[level] = () => {};

const say = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
const nameOf = (kinds, value) => Object.keys(kinds).find((key) => kinds[key] === value) ?? String(value);

const identifier = { type: "m.id.user", user: name };
const session = await sdk
    .createClient({ baseUrl, logger })
    .loginRequest({ type: "m.login.password", identifier, password, initial_device_display_name: "Element" });

let storageKey;
const client = sdk.createClient({
    baseUrl,
    logger,
    userId: session.user_id,
    deviceId: session.device_id,
    accessToken: session.access_token,
    cryptoCallbacks: {
        getSecretStorageKey: async ({ keys }) => (storageKey ? [Object.keys(keys)[0], storageKey] : null),
        cacheSecretStorageKey: (_id, _info, key) => {
            storageKey = key;
        },
    },
});
await client.initRustCrypto({ useIndexedDB: false });
const crypto = client.getCrypto();

/** Answers the homeserver's question for the password when keys are uploaded. */
async function withPassword(upload) {
    try {
        return await upload(null);
    } catch (error) {
        return await upload({ type: "m.login.password", identifier, password, session: error.data?.session });
    }
}

/** Says how one event looks in the timeline: its text, or why there is none, and its shield. */
async function report(event) {
    if (event.isEncrypted()) await client.decryptEventIfNeeded(event);
    const failed = event.isDecryptionFailure();
    const info = event.isEncrypted() && !failed ? await crypto.getEncryptionInfoForEvent(event) : null;
    const content = event.getContent();
    say("message", {
        room: event.getRoomId(),
        event_id: event.getId(),
        sender: event.getSender(),
        type: event.getType(),
        msgtype: content.msgtype,
        body: failed ? null : content.body,
        content: failed ? null : content,
        encrypted: event.isEncrypted(),
        failure: failed ? String(event.decryptionFailureReason) : null,
        shield: info ? nameOf(EventShieldColour, info.shieldColour) : null,
        reason: info && info.shieldReason !== null ? nameOf(EventShieldReason, info.shieldReason) : null,
    });
}

const undecrypted = new Set();
client.on("Room.timeline", async (event, _room, toStart) => {
    if (toStart || event.getSender() === session.user_id) return;
    if (event.getType() === "com.beeper.message_send_status") {
        say("status", { room: event.getRoomId(), sender: event.getSender(), content: event.getContent() });
    }
    if (!SHOWN.has(event.getType())) return;
    await report(event);
    if (event.isDecryptionFailure()) undecrypted.add(event.getId());
});
client.on("Event.decrypted", async (event) => {
    if (undecrypted.has(event.getId()) && !event.isDecryptionFailure()) {
        undecrypted.delete(event.getId());
        await report(event);
    }
});
client.on("RoomMember.membership", (_event, member) => {
    if (member.userId !== session.user_id || member.membership !== "invite") return;
    say("invited", { room: member.roomId, by: member.events.member?.getSender() });
});
client.on(CryptoEvent.DevicesUpdated, (users) => say("devices_changed", { users }));
client.on("RoomState.events", (event) => {
    const [room, type, key, content] = [event.getRoomId(), event.getType(), event.getStateKey(), event.getContent()];
    if (type === "m.room.member") say("membership", { room, user: key, membership: content.membership });
    else say("state", { room, type, key, content });
});

/** Resolves once the client knows the room as joined, so that it can tell whether to encrypt. */
async function joinedRoom(roomId) {
    const known = () => client.getRoom(roomId)?.getMyMembership() === "join";
    while (!known()) await new Promise((resolve) => client.once("sync", resolve));
    return client.getRoom(roomId);
}

const commands = {
    ...verifications(client, crypto, say),
    async set_up_cross_signing() {
        const key = await crypto.createRecoveryKeyFromPassphrase();
        await crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: withPassword,
            setupNewCrossSigning: true,
        });
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
        });
        return { recovery_key: key.encodedPrivateKey, ready: await crypto.isCrossSigningReady() };
    },
    async recover({ recovery_key }) {
        storageKey = decodeRecoveryKey(recovery_key);
        await crypto.userHasCrossSigningKeys(session.user_id, true);
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword });
        return { ready: await crypto.isCrossSigningReady() };
    },
    async only_signed_devices({ on }) {
        crypto.setDeviceIsolationMode(on ? new OnlySignedDevicesIsolationMode() : new AllDevicesIsolationMode(false));
    },
    async only_verified_devices({ on }) {
        crypto.globalBlacklistUnverifiedDevices = on;
    },
    async verify_device({ user, device }) {
        await crypto.getUserDeviceInfo([user], true);
        await crypto.setDeviceVerified(user, device);
    },
    async create_room({ invite, encrypted, direct, title }) {
        const { room_id } = await client.createRoom({
            name: title,
            invite,
            preset: direct ? "trusted_private_chat" : "private_chat",
            is_direct: direct,
            initial_state: encrypted ? [MEGOLM] : [],
        });
        await joinedRoom(room_id);
        return { room: room_id };
    },
    async join({ room }) {
        await client.joinRoom(room);
        await joinedRoom(room);
    },
    async invite({ room, user }) {
        await client.invite(room, user);
    },
    async log_out() {
        await client.logout(true);
    },
    async send({ room, body }) {
        await joinedRoom(room);
        return { event_id: (await client.sendTextMessage(room, body)).event_id };
    },
    async send_content({ room, content }) {
        await joinedRoom(room);
        return { event_id: (await client.sendMessage(room, content)).event_id };
    },
    async discard_room_key({ room }) {
        await crypto.forceDiscardSession(room);
    },
    async send_in_clear({ room, body }) {
        const path = `/rooms/${encodeURIComponent(room)}/send/m.room.message/${client.makeTxnId()}`;
        return await client.http.authedRequest("PUT", path, undefined, { msgtype: "m.text", body });
    },
    async members({ room }) {
        const { joined } = await client.getJoinedRoomMembers(room);
        return { joined: Object.keys(joined) };
    },
    async is_encrypted({ room }) {
        return { encrypted: await crypto.isEncryptionEnabledInRoom(room) };
    },
    async trust({ user }) {
        const identity = await crypto.getUserVerificationStatus(user);
        const devices = (await crypto.getUserDeviceInfo([user], true)).get(user) ?? new Map();
        const signed = {};
        for (const id of devices.keys()) {
            signed[id] = (await crypto.getDeviceVerificationStatus(user, id))?.signedByOwner ?? false;
        }
        return { needs_approval: identity.needsUserApproval, signed_by_owner: signed };
    },
    async accept_new_identity({ user }) {
        await crypto.pinCurrentUserIdentity(user);
    },
};

await client.startClient({ initialSyncLimit: 1000, pollTimeout: 20000 });
await new Promise((resolve) => client.on("sync", (state) => state === "PREPARED" && resolve()));
say("ready", { user: session.user_id, device: session.device_id, version: crypto.getVersion() });

for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    commands[command.do](command).then(
        (value) => say("done", { id: command.id, value: value ?? null }),
        (error) => say("failed", { id: command.id, error: String(error?.stack ?? error).slice(0, 600) }),
    );
}
process.exit(0);
