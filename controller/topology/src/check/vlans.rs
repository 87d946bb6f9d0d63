//! VLANs: one name for each identifier, and how a link carries them.

use crate::{
    check::names,
    codes::Code,
    report::{Sink, Span, visible},
    said::{
        lab::{Carried, Lab},
        read::Said,
        scalar::VlanName,
    },
};
use std::collections::{BTreeMap, HashMap};
use vswitch_core::{
    description::{Membership, Vlan},
    vlan::{VlanId, VlanSet},
};

/// The VLANs of a lab. Those whose entry could not be read are known by name only.
#[derive(Debug)]
pub(crate) struct Vlans {
    ids: BTreeMap<String, Option<VlanId>>,
    pub(crate) list: Vec<Vlan>,
}

impl Vlans {
    /// The VLANs of `lab`; `default` is always there, first unless the file names it.
    pub(crate) fn of(lab: &Lab, sink: &mut Sink) -> Self {
        let mut vlans = Self { ids: BTreeMap::new(), list: Vec::new() };
        let mut taken: HashMap<VlanId, Span> = HashMap::new();
        for entry in lab.vlans.iter().flat_map(|list| &list.0) {
            names::check(&entry.name, entry.span, sink);
            let said = entry.value.as_ref().and_then(|vlan| vlan.id.as_ref());
            let id = said.and_then(|id| VlanId::new(id.value.0));
            vlans.ids.insert(entry.name.clone(), id);
            let (Some(said), Some(id)) = (said, id) else { continue };
            if (entry.name == "default") != (id == VlanId::DEFAULT) {
                sink.error(Code::VlanTaken, said.span, "VLAN 1 is `default`, and `default` is VLAN 1")
                    .help("VLAN 1 need not be listed; use another id");
            } else if let Some(first) = taken.get(&id) {
                sink.error(Code::VlanTaken, said.span, format!("VLAN {id} has two names"))
                    .label(*first, "first named here");
            } else {
                taken.insert(id, said.span);
                vlans.list.push(Vlan { id, name: entry.name.clone(), origin: Some(entry.span.origin) });
            }
        }
        if !vlans.ids.contains_key("default") {
            vlans.ids.insert("default".to_owned(), Some(VlanId::DEFAULT));
            vlans.list.insert(0, Vlan { id: VlanId::DEFAULT, name: "default".to_owned(), origin: None });
        }
        vlans
    }

    /// The identifier of the VLAN that is called `name`.
    pub(crate) fn id(&self, name: &str) -> Option<VlanId> {
        self.ids.get(name).copied().flatten()
    }

    /// The VLAN that is called `name`.
    pub(crate) fn get(&self, said: &Said<VlanName>, sink: &mut Sink) -> Option<VlanId> {
        let name = &said.value.0;
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        if let Ok(number) = name.parse::<u16>() {
            let named = self.list.iter().find(|vlan| u16::from(vlan.id) == number);
            let help = match named {
                Some(vlan) => format!("write its name: `{}`", vlan.name),
                None => format!(
                    "give it a name under `vlans:`, like `office: {{ id: {number} }}`, and write that"
                ),
            };
            sink.error(
                Code::UnknownVlan,
                said.span,
                format!("VLANs go by name here, not by number: `{number}`"),
            )
            .help(help);
            return None;
        }
        sink.error(Code::UnknownVlan, said.span, format!("there is no VLAN `{}`", visible(name)))
            .help("add it under `vlans:`")
            .did_you_mean(name, self.ids.keys().map(String::as_str));
        None
    }

    /// What a link's `vlan:` means.
    pub(crate) fn membership(&self, said: &Said<Carried>, sink: &mut Sink) -> Option<Membership> {
        match &said.value {
            Carried { access: Some(access), trunk: None, native: None } => {
                self.get(access, sink).map(Membership::Access)
            }
            Carried { access: None, trunk: Some(trunk), native } => {
                let mut vlans: VlanSet = trunk.iter().filter_map(|name| self.get(name, sink)).collect();
                if trunk.is_empty() && native.is_none() {
                    sink.error(Code::Membership, said.span, "this trunk carries no VLAN");
                }
                let native = native.as_ref().and_then(|name| self.get(name, sink));
                native.into_iter().for_each(|id| vlans.insert(id));
                Some(Membership::Trunk { vlans, native })
            }
            Carried { access: Some(access), .. } => {
                sink.error(Code::Membership, access.span, "`access` stands alone")
                    .help("a link that carries several VLANs is `trunk: [...]` with an optional `native`");
                None
            }
            // Something was given that could not be read: that was told.
            Carried { access: None, trunk: None, native: None } if sink.failed() => None,
            Carried { access: None, trunk: None, native } => {
                let span = native.as_ref().map_or(said.span, |native| native.span);
                sink.error(Code::Membership, span, "`vlan` needs `access` or `trunk`");
                None
            }
        }
    }

    /// A trunk of all VLANs: what two switches are joined by unless the file says otherwise.
    pub(crate) fn all(&self) -> Membership {
        let vlans = self.list.iter().map(|vlan| vlan.id).collect();
        Membership::Trunk { vlans, native: Some(VlanId::DEFAULT) }
    }
}
