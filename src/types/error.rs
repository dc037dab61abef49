//! Failures by whose they are: the user's, the world's, ours.

use arrow::error::ArrowError;

/// What went wrong, as a sentence that starts in lower case and ends without a full stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be done as asked.
    #[error("{0}")]
    User(String),
    /// Something outside failed: a broker, a disk, a name node.
    #[error("{message}")]
    External {
        message: String,
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The state on disk is damaged or of another definition.
    #[error("{0}")]
    State(String),
    /// More was committed than what this was computed from: to begin again from the last commit.
    #[error("{0}")]
    Overtaken(String),
    /// Our mistake.
    #[error("internal error: {0}; please report it")]
    Bug(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn user(message: impl Into<String>) -> Self {
        Self::User(message.into())
    }

    pub fn external(message: impl Into<String>) -> Self {
        Self::External {
            message: message.into(),
            cause: None,
        }
    }

    /// `message`, then the cause's own words.
    pub fn caused(message: impl std::fmt::Display, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::External {
            message: format!("{message}: {cause}"),
            cause: Some(Box::new(cause)),
        }
    }

    pub fn state(message: impl Into<String>) -> Self {
        Self::State(message.into())
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::Bug(message.into())
    }

    /// Ours: Arrow refuses only what does not fit together, and what is put together was planned to fit.
    pub fn of_arrow(error: ArrowError) -> Self {
        Self::bug(error.to_string())
    }
}
