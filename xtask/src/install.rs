//! Installs the servers and clients that the demonstration and the tests need, and only what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::postgres;
use crate::shell::{announce, as_root, cache, find_program, output, run_quietly, workspace};

/// One thing that is needed from the system.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// What a person calls it.
    name: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// Whether it is there.
    present: fn() -> bool,
}

/// What the demonstration needs.
pub const FOR_DEMO: [Need; 5] = [
    Need {
        name: "Prosody",
        packages: &["prosody", "lua-sec", "lua-event", "lua-unbound"],
        present: || find_program("prosody").is_some(),
    },
    Need { name: "OpenSSL", packages: &["openssl"], present: || find_program("openssl").is_some() },
    Need {
        name: "Python with venv",
        packages: &["python3", "python3-venv"],
        present: || output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_ok(),
    },
    Need {
        name: "setpriv",
        packages: &["util-linux"],
        present: || find_program("setpriv").is_some(),
    },
    Need {
        name: "a C compiler",
        packages: &["build-essential"],
        present: || find_program("cc").is_some(),
    },
];

/// What the tests need.
pub const EVERYTHING: [Need; 9] = {
    let [a, b, c, d, e] = FOR_DEMO;
    let npm = Need {
        name: "npm",
        packages: &["npm", "nodejs"],
        present: || find_program("npm").is_some(),
    };
    let postgresql = Need {
        name: "PostgreSQL",
        packages: &["postgresql"],
        present: || postgres::programs().is_some(),
    };
    let ejabberd = Need {
        name: "ejabberd",
        packages: &["ejabberd"],
        present: || find_program("ejabberdctl").is_some(),
    };
    let faketime = Need {
        name: "libfaketime",
        packages: &["libfaketime"],
        present: || output(Command::new("dpkg").args(["-L", "libfaketime"])).is_ok(),
    };
    [a, b, c, d, e, npm, postgresql, ejabberd, faketime]
};

/// Installs what is missing of these, and the packages of Python and JavaScript that go with them.
pub fn install(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !(need.present)()).collect();
    if !missing.is_empty() {
        install_from_debian(&missing)?;
    }
    let tests = workspace().join("tests");
    install_python("venv-synapse", &tests.join("servers/requirements.txt"), "Synapse")?;
    install_python("venv-peers", &tests.join("peers/requirements.txt"), "the OMEMO client")?;
    if needs.iter().any(|need| need.name == "npm") {
        install_javascript(&tests.join("peers/js"))?;
    }
    Ok(())
}

fn install_from_debian(missing: &[&Need]) -> Result<()> {
    let names: Vec<_> = missing.iter().map(|need| need.name).collect();
    let names = names.join(", ");
    if !is_debian() {
        bail!("missing: {names}. Install it with this system's own means, then run this again");
    }
    announce(&format!("Installing {names} from Debian's packages"));
    let packages = missing.iter().flat_map(|need| need.packages);
    let _quiet = NoServices::declare()?;
    let apt = |arguments: &[&str]| -> Result<Command> {
        let mut command = as_root("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        command.args(["-o", "DPkg::Lock::Timeout=600"]).args(arguments);
        Ok(command)
    };
    run_quietly(&mut apt(&["update"])?)?;
    run_quietly(apt(&["install", "-y", "--no-install-recommends"])?.args(packages))?;
    match missing.iter().find(|need| !(need.present)()) {
        Some(need) => bail!("{} is still missing after the installation", need.name),
        None => Ok(()),
    }
}

fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let named = |line: &str| line.starts_with("ID=") || line.starts_with("ID_LIKE=");
    release.lines().filter(|line| named(line)).any(|line| line.contains("debian"))
}

/// While it lives, packages do not start their services: the tests start servers of their own.
struct NoServices {
    policy: Option<&'static str>,
}

impl NoServices {
    fn declare() -> Result<Self> {
        const POLICY: &str = "/usr/sbin/policy-rc.d";
        if Path::new(POLICY).exists() {
            return Ok(Self { policy: None });
        }
        let draft = std::env::temp_dir().join(format!("gephyra-policy-{}", std::process::id()));
        fs::write(&draft, "#!/bin/sh\nexit 101\n").context("writing the policy for services")?;
        let installed =
            run_quietly(as_root("install")?.args(["-m", "755"]).arg(&draft).arg(POLICY));
        fs::remove_file(&draft).context("removing the draft of the policy")?;
        installed?;
        Ok(Self { policy: Some(POLICY) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let Some(policy) = self.policy else { return };
        let removed = as_root("rm").and_then(|mut rm| run_quietly(rm.arg("-f").arg(policy)));
        if let Err(error) = removed {
            announce(&format!("Please remove {policy} by hand: {error}"));
        }
    }
}

fn install_python(environment: &str, requirements: &Path, what: &str) -> Result<()> {
    let dir = cache()?.join(environment);
    let stamp = Stamp::of(requirements, dir.join("installed-requirements.txt"))?;
    if stamp.is_current() {
        return Ok(());
    }
    announce(&format!("Installing {what} into {}", dir.display()));
    run_quietly(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    let mut pip = Command::new(dir.join("bin/pip"));
    run_quietly(pip.args(["install", "-q", "-r"]).arg(requirements))?;
    stamp.renew()
}

fn install_javascript(dir: &Path) -> Result<()> {
    let lock = dir.join("package-lock.json");
    let stamp = Stamp::of(&lock, dir.join("node_modules/installed-package-lock.json"))?;
    if stamp.is_current() {
        return Ok(());
    }
    announce("Installing matrix-js-sdk and Node.js from npm");
    run_quietly(Command::new("npm").arg("ci").current_dir(dir))?;
    stamp.renew()
}

/// A copy of a list of packages, beside what was installed by it.
struct Stamp {
    wanted: String,
    file: PathBuf,
}

impl Stamp {
    fn of(list: &Path, file: PathBuf) -> Result<Self> {
        let wanted =
            fs::read_to_string(list).with_context(|| format!("reading {}", list.display()))?;
        Ok(Self { wanted, file })
    }

    fn is_current(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|found| found == self.wanted)
    }

    fn renew(&self) -> Result<()> {
        fs::write(&self.file, &self.wanted).context("noting what was installed")
    }
}
