// Comparing emoji, as Element does it over matrix-js-sdk. One verification at a time.
//
// Events: `verification` {flow, phase, by, code} whenever it moves, `emoji` {emoji, numbers} when there is something
// to compare.
import { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

export function verifications(client, crypto, say) {
    let request = null;
    let shown = null;
    const watched = new WeakSet();

    function watchVerifier(verifier) {
        if (!verifier || watched.has(verifier)) return;
        watched.add(verifier);
        verifier.on(VerifierEvent.ShowSas, (sas) => {
            shown = sas;
            say("emoji", { emoji: sas.sas.emoji.map(([symbol]) => symbol), numbers: sas.sas.decimal });
        });
        // How it ends is told by the request.
        verifier.verify().catch(() => {});
    }

    function watch(begun) {
        [request, shown] = [begun, null];
        const tell = () => {
            watchVerifier(begun.verifier);
            say("verification", {
                flow: begun.transactionId,
                phase: VerificationPhase[begun.phase],
                by: begun.initiatedByMe ? client.getUserId() : begun.otherUserId,
                code: begun.cancellationCode ?? null,
            });
        };
        begun.on(VerificationRequestEvent.Change, tell);
        tell();
    }

    client.on(CryptoEvent.VerificationRequestReceived, watch);

    return {
        async verify_in_room({ user, room }) {
            watch(await crypto.requestVerificationDM(user, room));
        },
        async verify_device_to_device({ user, device }) {
            await crypto.getUserDeviceInfo([user], true);
            watch(await crypto.requestDeviceVerification(user, device));
        },
        async accept_verification() {
            await request.accept();
        },
        async compare_emoji() {
            watchVerifier(await request.startVerification("m.sas.v1"));
        },
        async emoji_are_the_same() {
            await shown.confirm();
        },
        async emoji_differ() {
            shown.mismatch();
        },
        async cancel_verification() {
            await request.cancel();
        },
        async sees_verified({ user }) {
            const status = await crypto.getUserVerificationStatus(user);
            return { verified: status.isCrossSigningVerified() };
        },
    };
}
