//! `help`: which commands there are.

use async_trait::async_trait;

use super::{COMMANDS, Call, Command, PREFIX};

pub(super) struct Help;

#[async_trait]
impl Command for Help {
    fn name(&self) -> &'static str {
        "help"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "Lists the commands."
    }

    async fn run(&self, _: &Call<'_>, _: &[&str]) -> String {
        let mut help = format!("In a chat write “{PREFIX}” before each command.");
        for command in COMMANDS {
            help.push_str(&format!(
                "\n{} {} — {}",
                command.name(),
                command.usage(),
                command.about()
            ));
            if !command.example().is_empty() {
                help.push_str(&format!(" For example: {}", command.example()));
            }
        }
        help
    }
}
