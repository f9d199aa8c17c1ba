//! What cargo cannot know by itself.

fn main() {
    // `sqlx::migrate!` alone only notices changed migrations, not new ones.
    println!("cargo:rerun-if-changed=migrations");
    // `cryptostore_integration_tests!` asks for features of matrix-sdk-crypto in our name.
    println!(
        "cargo:rustc-check-cfg=cfg(feature, \
         values(\"experimental-push-secrets\", \"experimental-encrypted-state-events\"))"
    );
}
