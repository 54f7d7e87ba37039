//! To the keeper of audit devices: where else records go.

use std::collections::BTreeMap;

use actix::Message;
use mssm_domain::{ErrorKind, Fault, Prefix};

use crate::BarrierError;

/// A device, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its path, as `file/`.
    pub path: Prefix,
    /// `file`, `syslog`, `socket` or `http`.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Vault's word; means nothing to one server.
    pub local: bool,
    /// What was chosen for it.
    pub options: BTreeMap<String, String>,
}

/// Adds a device; replies once it has taken a record and is stored.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), DeviceError>")]
pub struct EnableDevice(pub Device);

/// Takes a device away; one that is not there is no error.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), DeviceError>")]
pub struct DisableDevice(pub Prefix);

/// Lists devices, by path.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<Device>, DeviceError>")]
pub struct ListDevices;

/// Asks how a device shows a keyed hash.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<[u8; 32], DeviceError>")]
pub struct ShowHash {
    /// Which.
    pub device: Prefix,
    /// The hash, under the audit's own key.
    pub hash: [u8; 32],
}

/// Why a device was not added, taken away or asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is one at this path.
    #[error("path is already in use at {0}")]
    Taken(Prefix),
    /// Another one writes to the same place.
    #[error("the device {0} writes there already")]
    SamePlace(Prefix),
    /// Its kind or an option; says what is wrong and what would be right.
    #[error("{0}")]
    Invalid(String),
    /// It did not take the first record; says why.
    #[error("{0}")]
    Refused(String),
    /// There are as many as there may be.
    #[error("there are {0} audit devices already, which is as many as there may be")]
    TooMany(usize),
    /// The configuration file has it.
    #[error("{0} is set up in the server's configuration, not via the API")]
    Configured(Prefix),
    /// There is none of this path.
    #[error("unknown audit backend: {0}")]
    Unknown(Prefix),
    /// The store or the keys.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// A bug.
    #[error("internal")]
    Internal,
}

impl Fault for DeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Taken(_) | Self::SamePlace(_) | Self::TooMany(_) => ErrorKind::Conflict,
            Self::Invalid(_) | Self::Refused(_) | Self::Configured(_) | Self::Unknown(_) => {
                ErrorKind::Invalid
            }
            Self::Barrier(error) => error.kind(),
            Self::Internal => ErrorKind::Internal,
        }
    }

    fn public(&self) -> Vec<String> {
        match self {
            Self::Barrier(error) => error.public(),
            Self::Internal => vec!["internal error".to_owned()],
            Self::Taken(_)
            | Self::SamePlace(_)
            | Self::TooMany(_)
            | Self::Invalid(_)
            | Self::Refused(_)
            | Self::Configured(_)
            | Self::Unknown(_) => vec![self.to_string()],
        }
    }
}
