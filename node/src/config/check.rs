//! Set-ups that are refused before anything starts, and those that deserve a warning.

use std::{fmt, net::SocketAddr, path::Path};

use super::{Config, ConfigError, Drain, Fault, Origin, Problem, Seed, secrets};

/// A set-up that works, though probably not as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// See [`Config::check`].
pub(super) fn check(config: &Config) -> Result<Vec<Warning>, ConfigError> {
    let mut findings = Findings::default();
    findings.clients(config);
    findings.api(config);
    if let Some(listen) = config.cluster_listener() {
        findings.cluster(config, listen);
    } else if config.cluster.advertise.is_some() {
        findings.warn(
            "cluster.advertise is set, but the node is in no cluster: set cluster.listen or \
             cluster.join",
        );
    }
    findings.drain(config);
    findings.channels(config);
    let Findings { refusals, warnings } = findings;
    ConfigError::new(refusals).map_or(Ok(warnings), Err)
}

#[derive(Default)]
struct Findings {
    refusals: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Findings {
    fn refuse(&mut self, why: impl fmt::Display) {
        let fault = Fault::Setup(why.to_string());
        self.refusals.push(Problem { origin: Origin::Whole, fault });
    }

    fn warn(&mut self, why: impl fmt::Display) {
        self.warnings.push(Warning(why.to_string()));
    }

    fn clients(&mut self, config: &Config) {
        let undecided = config.auth.anonymous.is_none();
        for (key, listen) in config.exposed().filter(|_| undecided) {
            self.refuse(format_args!(
                "{key} is {listen}, not loopback, and auth.anonymous is not decided: set \
                 auth.anonymous = true to let anyone connect, or listen on loopback"
            ));
        }
        if config.auth.anonymous == Some(false) {
            self.warn(
                "auth.anonymous = false and there is no other way to log in: every client is \
                 refused",
            );
        }
    }

    fn api(&mut self, config: &Config) {
        match config.api_token() {
            Err(error) => self.refuse(error),
            Ok(None) if !config.http_on_loopback() => self.warn(format_args!(
                "http.listen is {} and there is no API token: /api answers on loopback only; set \
                 auth.api_token_file to reach it from elsewhere",
                config.http.listen
            )),
            Ok(None) => {}
            Ok(Some(_)) => {
                self.permissions("auth.api_token_file", config.auth.api_token_file.as_deref());
            }
        }
    }

    fn cluster(&mut self, config: &Config, listen: SocketAddr) {
        let cluster = &config.cluster;
        match config.cluster_secrets() {
            Err(error) => self.refuse(error),
            Ok(_) if cluster.secret.is_some() => {}
            Ok(_) => self.permissions("cluster.secret_file", cluster.secret_file.as_deref()),
        }
        match cluster.advertise {
            None if listen.ip().is_unspecified() => self.refuse(format_args!(
                "cluster.listen is {listen}, every address of this machine: set \
                 cluster.advertise to the IP:PORT that peers reach it under"
            )),
            None => {}
            Some(address) => self.advertise(address, listen),
        }
        if !listen.ip().is_loopback() {
            return;
        }
        for seed in &cluster.join {
            if let Seed::Address(address) = seed
                && !address.ip().is_loopback()
            {
                self.refuse(format_args!(
                    "cluster.join has {address}, which cannot be reached from loopback \
                     ({listen}): set cluster.listen to an address of the same network"
                ));
            }
        }
    }

    fn advertise(&mut self, address: SocketAddr, listen: SocketAddr) {
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            self.refuse(format_args!(
                "cluster.advertise is {address}, which no peer can reach: set it to one IP:PORT \
                 of this node"
            ));
        } else if address.ip().is_loopback() && !listen.ip().is_loopback() {
            self.warn(format_args!(
                "cluster.advertise is {address}: only nodes of this machine will reach this node"
            ));
        } else if address.is_ipv4() != listen.is_ipv4() && !listen.ip().is_unspecified() {
            self.warn(format_args!(
                "cluster.advertise is {address} while cluster.listen is {listen}: one is IPv4, \
                 the other IPv6"
            ));
        }
    }

    fn drain(&mut self, config: &Config) {
        let Drain { delay, timeout, .. } = config.drain;
        if delay >= timeout {
            self.warn(format_args!(
                "drain.delay ({delay:?}) is not below drain.timeout ({timeout:?}): the time is over \
                 before the first client is sent away, and all are at once; make the timeout longer"
            ));
        }
    }

    fn channels(&mut self, config: &Config) {
        for (i, rule) in config.channels.iter().enumerate() {
            let former =
                config.channels[..i].iter().find(|former| former.topic.covers(&rule.topic));
            if let Some(former) = former {
                self.warn(format_args!(
                    "[[channel]] {:?} is never used: {:?} stands before it and the first match \
                     wins",
                    rule.topic.to_string(),
                    former.topic.to_string()
                ));
            }
        }
    }

    fn permissions(&mut self, key: &str, path: Option<&Path>) {
        if let Some(path) = path.filter(|path| secrets::others_may_read(path)) {
            let path = path.display();
            self.warn(format_args!("{key} {path} can be read by others: chmod 600 {path}"));
        }
    }
}
