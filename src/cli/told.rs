//! What verbs tell people: on standard output and standard error, to whoever still reads there.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stderr, stdout},
};

/// On standard output, as it is. Whoever stopped reading, as `head` does, misses it and hinders nothing.
pub fn tell(text: impl Display) {
    hand_over(stdout(), text);
}

/// The same on standard error, with the end of a line.
pub fn complain(text: impl Display) {
    hand_over(stderr(), format_args!("{text}\n"));
}

fn hand_over(mut to: impl Write, text: impl Display) {
    match write!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            tracing::warn!(%error, "cannot write what there is to tell")
        }
        Ok(()) | Err(_) => {}
    }
}
