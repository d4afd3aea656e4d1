//! Who may do what: scopes of API keys, what a request needs, and what each key may use.
//!
//! Pure: what a request shows has been looked up before, and time comes in as an argument.

pub mod meter;
pub mod origins;
#[cfg(test)]
mod tests;

use std::fmt;

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Requests to models.
    Infer,
    /// The fleet API and the dashboard.
    Read,
    /// Changes to the fleet; reading too.
    Admin,
    /// Heartbeats.
    Node,
}

impl Scope {
    /// All of them, by their names in files, flags and messages.
    pub const NAMES: [(&str, Self); 4] =
        [("infer", Self::Infer), ("read", Self::Read), ("admin", Self::Admin), ("node", Self::Node)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Read => "read",
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Reads names, as from `infer,read`; `None` = one is unknown, or there is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut scopes = Self::default();
        for name in names {
            let (_, scope) = Scope::NAMES.iter().find(|(known, _)| *known == name.trim())?;
            scopes = scopes.and(*scope);
        }
        (!scopes.is_empty()).then_some(scopes)
    }

    /// These and `scope`.
    #[must_use]
    pub fn and(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    /// Whether `scope` is one of them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::NAMES.into_iter().filter(move |(_, scope)| self.has(*scope)).map(|(name, _)| name)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// `access.require`: when keys are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Require {
    /// As soon as there are keys for it.
    #[default]
    Auto,
    /// For everything but signs of life, from this machine too.
    Always,
    /// Only for changes from other machines.
    Never,
}

impl Require {
    /// All of them, by their names in the configuration.
    pub const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// See that herd lives.
    Nothing,
    /// Ask a model.
    Infer,
    /// See which models there are.
    Catalogue,
    /// See the fleet.
    Read,
    /// Change something.
    Change,
    /// Report a node.
    Node,
}

impl Need {
    /// The scope that a key must have for it, for messages. Of a need that several serve, the usual one.
    #[must_use]
    pub fn scope(self) -> Option<Scope> {
        match self {
            Self::Nothing => None,
            Self::Infer | Self::Catalogue => Some(Scope::Infer),
            Self::Read => Some(Scope::Read),
            Self::Change => Some(Scope::Admin),
            Self::Node => Some(Scope::Node),
        }
    }

    /// Whether a key with `scopes` is good for it.
    #[must_use]
    pub fn met_by(self, scopes: Scopes) -> bool {
        match self {
            Self::Nothing => true,
            Self::Infer => scopes.has(Scope::Infer),
            Self::Catalogue => scopes.has(Scope::Infer) || scopes.has(Scope::Read) || scopes.has(Scope::Admin),
            // Who may change the fleet may see what it is.
            Self::Read => scopes.has(Scope::Read) || scopes.has(Scope::Admin),
            Self::Change => scopes.has(Scope::Admin),
            Self::Node => scopes.has(Scope::Node),
        }
    }
}

/// Where a request comes from, as far as its rights depend on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This machine's operator: a loopback connection that no proxy has forwarded.
    Local,
    /// Another machine, or another user of this one.
    Network,
    /// A reverse proxy, which may stand for anybody on the Internet.
    Proxied,
}

/// How guarded the edge is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Posture {
    /// What the operator says.
    pub require: Require,
    /// The scopes of all keys together. Disabled ones count too: to disable the last key must open nothing.
    pub scopes: Scopes,
}

impl Posture {
    /// Whether `need` takes a key of a request from `source`.
    #[must_use]
    pub fn asks_for_key(&self, need: Need, source: Source) -> bool {
        let guarded = |scope| self.scopes.has(scope);
        let (local, proxied) = (source == Source::Local, source == Source::Proxied);
        match (need, self.require) {
            (Need::Nothing, _) => false,
            (_, Require::Always) => true,
            (Need::Change, _) => !local,
            // Behind a proxy is whoever its other side lets in: its own address says nothing of them.
            (Need::Node, _) | (Need::Read, Require::Auto) if proxied => true,
            (_, Require::Never) => false,
            (Need::Infer, Require::Auto) => guarded(Scope::Infer),
            (Need::Catalogue, Require::Auto) => guarded(Scope::Infer) && !local,
            (Need::Node, Require::Auto) => guarded(Scope::Node),
            // Keys for anything but nodes say that the network is not all friends.
            (Need::Read, Require::Auto) => !local && [Scope::Infer, Scope::Read, Scope::Admin].into_iter().any(guarded),
        }
    }

    /// Whether this machine's operator may do without a key what others need one for.
    #[must_use]
    pub fn favours_local(&self, need: Need) -> bool {
        self.asks_for_key(need, Source::Local) != self.asks_for_key(need, Source::Network)
    }

    /// Whether a request from `source` that shows `shown` may do what it needs.
    ///
    /// # Errors
    /// With what it lacks.
    pub fn check(&self, need: Need, source: Source, shown: Shown) -> Result<(), Denied> {
        if !self.asks_for_key(need, source) {
            return Ok(());
        }
        let Some(scope) = need.scope() else { return Ok(()) };
        match shown {
            Shown::Key(scopes) if need.met_by(scopes) => Ok(()),
            Shown::Key(_) => Err(Denied::Scope(scope)),
            Shown::Disabled => Err(Denied::Disabled),
            Shown::Nothing | Shown::Unknown => Err(self.denied(need, scope, source, shown)),
        }
    }

    fn denied(self, need: Need, scope: Scope, source: Source, shown: Shown) -> Denied {
        // Where no key in the world would help, say so instead of asking for one.
        let has_key_for_it =
            Scope::NAMES.iter().any(|(_, scope)| self.scopes.has(*scope) && need.met_by(Scopes::default().and(*scope)));
        match (need, source) {
            (Need::Change, Source::Network) if !has_key_for_it => Denied::NotLocal,
            (Need::Change | Need::Read | Need::Node, Source::Proxied) if !has_key_for_it => Denied::Proxied(scope),
            _ if shown == Shown::Nothing => Denied::Missing(scope),
            _ => Denied::Unknown,
        }
    }
}

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// No key.
    Nothing,
    /// Something that is none.
    Unknown,
    /// A key that is switched off.
    Disabled,
    /// A key with these scopes.
    Key(Scopes),
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows no key.
    #[error("an API key with the scope {} is required: Authorization: Bearer <key>", .0.name())]
    Missing(Scope),
    /// What it shows is no key.
    #[error("the API key is not valid")]
    Unknown,
    /// Its key is switched off.
    #[error("the API key is disabled")]
    Disabled,
    /// Its key is for something else.
    #[error("the API key lacks the scope {}", .0.name())]
    Scope(Scope),
    /// It comes from another machine, and no key is good for it.
    #[error(
        "the fleet can be changed from this machine only, by the user that runs herd or root (access.local_users); or \
         with an API key with the scope admin"
    )]
    NotLocal,
    /// It comes through a proxy, and no key is good for it.
    #[error(
        "what comes through a proxy needs an API key with the scope {}, and there is none: herd key add NAME --scope {}",
        .0.name(), .0.name()
    )]
    Proxied(Scope),
}

impl Denied {
    /// 401 where another key would help, else 403.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Missing(_) | Self::Unknown | Self::Disabled => 401,
            Self::Scope(_) | Self::NotLocal | Self::Proxied(_) => 403,
        }
    }

    /// For programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing(_) => "key_required",
            Self::Unknown => "key_unknown",
            Self::Disabled => "key_disabled",
            Self::Scope(_) => "key_scope",
            Self::NotLocal => "not_local",
            Self::Proxied(_) => "proxied",
        }
    }
}

/// What the admin service is asked for by `method` on `path`. What is not known to be harmless is a change, so that a
/// new route is guarded before anybody thinks of it.
#[must_use]
pub fn need_of(method: &str, path: &str) -> Need {
    let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
    match path {
        "/heartbeat" | "/heartbeat/challenge" => Need::Node,
        "/" | "/api/version" | "/healthz" | "/readyz" | "/v1/messages" if reads => Need::Nothing,
        "/api/show" if method == "POST" => Need::Catalogue,
        "/fleet/explain" if method == "POST" => Need::Read,
        _ if !reads => Need::Change,
        _ if path.starts_with("/api/") || path.starts_with("/v1/") => Need::Catalogue,
        _ => Need::Read,
    }
}
