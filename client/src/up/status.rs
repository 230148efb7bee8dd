//! The state of a running client, as `ringfort status` prints it.

use ringfort_worker::Workers;
use serde_json::{Map, Value, json};

use super::Control;
use super::sites::SiteRun;

impl Control<'_> {
    /// The whole document.
    pub(super) fn document(&self) -> Value {
        let mut totals = Map::new();
        let sites: Vec<Value> = self.sites.iter().map(|run| run.document(&mut totals)).collect();
        let goodbye = self.sites.iter().find_map(|run| run.line.machine.goodbye());
        let claims = &self.tokens.claims.token;
        json!({
            "role": "client",
            "up": !self.sites.is_empty() && self.is_up(),
            "user": self.identity.user,
            "session": claims.sub,
            "login_ends_at": claims.dies_at().0,
            "certificate_ends_at": self.certificate_ends.0,
            "login_ended": self.login_ended,
            "renewing": !self.schedule.is_idle(),
            "told_to_renew": self.told_to_renew,
            "last_goodbye": goodbye.map(|goodbye| {
                json!({ "code": goodbye.code, "message": goodbye.message, "event": goodbye.event })
            }),
            "left_out": self.left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "sites": sites,
            "totals": totals,
        })
    }
}

impl SiteRun {
    /// This site's part; its counters are added to `totals` as well.
    fn document(&self, totals: &mut Map<String, Value>) -> Value {
        let snapshots = self.line.worker().map(Workers::snapshot).unwrap_or_default();
        let mut own = Map::new();
        for (name, count) in snapshots.iter().flat_map(|snapshot| &snapshot.counters) {
            own.insert((*name).to_owned(), Value::from(*count));
            let sum = totals.get(*name).and_then(Value::as_u64).unwrap_or(0) + count;
            totals.insert((*name).to_owned(), Value::from(sum));
        }
        let machine = &self.line.machine;
        let (seq, ends_at) = machine.standing();
        let denials: Vec<Value> = machine
            .denials()
            .map(|denied| json!({ "destination": denied.destination, "rule": denied.rule, "reason": denied.reason }))
            .collect();
        json!({
            "site": self.id,
            "name": self.name,
            "gateway": machine.gateway().map(|gateway| gateway.id.to_string()),
            "gateway_address": machine.gateway().map(|gateway| gateway.address.to_string()),
            "up": machine.is_up(),
            "bound": machine.is_bound(),
            "ended": machine.is_ended(),
            "trouble": machine.trouble(),
            "going_to": self.next.as_ref().and_then(|next| next.line.machine.gateway()).map(|gateway| gateway.id.to_string()),
            "seq": seq,
            "ends_at": ends_at,
            "interface": self.interface.name(),
            "backend": self.line.backend,
            "inner": self.inner.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
            "routes": self.routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "denials": denials,
            "totals": own,
        })
    }
}
