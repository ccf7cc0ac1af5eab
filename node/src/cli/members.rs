//! `wingbeat members`.

use std::time::Duration;

use serde::Deserialize;

use super::{
    ApiArgs, Failure, Terminal,
    client::Client,
    table::{Column, Table},
    text::printable,
};

/// List the nodes of the cluster as one node sees them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns: LINK whether bytes flow to it now, RTT the round trip, QUEUED bytes that wait for it,
LAG its presence changes that are still missing here, PRESENCES its clients that are listed,
AGREES whether both list the same presences.

Examples:
  wingbeat members
  wingbeat members --url http://10.0.0.7:4000
  wingbeat members --json | jq .agreement      whether all nodes list the same right now
  wingbeat members --json | jq -r '.members[] | select(.state == \"up\") | .name'")]
pub struct MembersArgs {
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

#[derive(Deserialize)]
struct Answer {
    node: Asked,
    members: Vec<Member>,
    partition_suspected: Option<Suspected>,
    /// Whether all nodes list the same presences.
    agreement: Option<bool>,
}

/// Members are missing that have not said goodbye.
#[derive(Deserialize)]
struct Suspected {
    seconds: u64,
    missing: usize,
    members: usize,
}

/// The node that answers.
#[derive(Deserialize)]
struct Asked {
    name: String,
    uptime_seconds: f64,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    address: Option<String>,
    state: String,
    region: Option<String>,
    version: Option<String>,
    linked: bool,
    /// Who relays its presences, where there is no link.
    via: Option<String>,
    rtt_ms: Option<f64>,
    queued_bytes: u64,
    presence_lag: u64,
    #[serde(default)]
    presences: u64,
    agreement: Option<bool>,
}

impl MembersArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let answer = client.get("/api/cluster").await?;
        let Answer { node, members, partition_suspected, agreement } = client.decode(&answer)?;
        if self.json {
            terminal.out.write_all(&answer)?;
            writeln!(terminal.out)?;
            return Ok(());
        }
        let up = Duration::try_from_secs_f64(node.uptime_seconds.trunc()).unwrap_or_default();
        let up = humantime::format_duration(up);
        writeln!(terminal.out, "as seen by {}, up {up}\n", printable(&node.name))?;
        if let Some(Suspected { seconds, missing, members }) = partition_suspected {
            let time = humantime::format_duration(Duration::from_secs(seconds));
            let are = if missing == 1 { "is" } else { "are" };
            writeln!(
                terminal.out,
                "partition suspected: {missing} of {members} members {are} missing without a goodbye, for {time}\n"
            )?;
        }
        let mut table = Table::new([
            Column::Left("NAME"),
            Column::Left("STATE"),
            Column::Left("ADDRESS"),
            Column::Left("REGION"),
            Column::Left("VERSION"),
            Column::Left("LINK"),
            Column::Right("RTT"),
            Column::Right("QUEUED"),
            Column::Right("LAG"),
            Column::Right("PRESENCES"),
            Column::Left("AGREES"),
        ]);
        for member in members {
            table.row(member.cells());
        }
        table.write(terminal.out)?;
        let agree = match agreement {
            Some(true) => "all nodes list the same presences",
            Some(false) => "not all nodes list the same presences right now",
            None => "not all nodes have compared their presences yet",
        };
        Ok(writeln!(terminal.out, "\n{agree}")?)
    }
}

impl Member {
    fn cells(self) -> [String; 11] {
        let absent = || "-".to_owned();
        let named = |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(absent);
        let answer = |yes: Option<bool>| match yes {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => absent(),
        };
        let itself = self.state == "self";
        let link = match self.via {
            Some(relay) if !self.linked => format!("via {relay}"),
            _ => answer((!itself).then_some(self.linked)),
        };
        [
            self.name,
            self.state,
            named(self.address),
            named(self.region),
            named(self.version),
            link,
            self.rtt_ms.map_or_else(absent, |ms| format!("{ms:.1} ms")),
            self.queued_bytes.to_string(),
            self.presence_lag.to_string(),
            self.presences.to_string(),
            answer(self.agreement),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_relays_a_node_without_a_link_is_shown() {
        let link = |state: &str, linked: bool, via: Option<&str>| {
            let member = json!({
                "name": "n1", "state": state, "linked": linked, "via": via, "queued_bytes": 0, "presence_lag": 0,
            });
            let member: Member = serde_json::from_value(member).expect("a member");
            member.cells()[5].clone()
        };
        assert_eq!(link("up", true, None), "yes");
        assert_eq!(link("up", false, Some("n2")), "via n2");
        assert_eq!(link("down", false, None), "no");
        assert_eq!(link("self", false, None), "-");
    }
}
