//! What an operator does after `gephyra init`.

use std::path::Path;

use super::init::{CONFIG_FILE, InitArgs, REGISTRATION_FILE};

/// The lines that both servers' configurations need, with this bridge's own values.
pub(super) fn text(args: &InitArgs, dir: &Path) -> String {
    let registration = dir.join(REGISTRATION_FILE);
    let config = dir.join(CONFIG_FILE);
    format!(
        "\
Wrote the configuration, the registration and the key to {dir}.

1. Synapse: give it a copy of the registration that its user can read, name that in homeserver.yaml,
   restart Synapse.

     sudo install -o matrix-synapse -m 0600 {registration} /etc/matrix-synapse/gephyra.yaml

     app_service_config_files:
       - /etc/matrix-synapse/gephyra.yaml

2. Prosody: add the component with the secret of {secret}, restart Prosody (a reload is not enough).
   (For ejabberd see the README.)

     Component \"{component}\"
       component_secret = \"…\"
       component_conflict_resolve = \"kick_old\"

3. Start the bridge as the user that these files belong to, not as root.

     gephyra run -c {config}

4. In Element, start a chat with @{bot}:{server} and say: help

Keep a copy of the key file: without it the database cannot be opened.
",
        dir = dir.display(),
        registration = registration.display(),
        secret = args.xmpp_secret_file.display(),
        component = args.xmpp_component.as_str(),
        config = config.display(),
        bot = crate::config::BOT_LOCALPART,
        server = args.server_name,
    )
}
