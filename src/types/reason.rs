//! Why a value could not be computed, as a sentence.

use datafusion::common::DataFusionError;

use super::Error;

/// The words of the error's root, in lower case and without the names of the parts that it went through.
pub fn reason_of(error: &DataFusionError) -> String {
    let root = error.find_root();
    if let DataFusionError::External(cause) = root
        && let Some(Error::User(sentence)) = cause.downcast_ref::<Error>()
    {
        return sentence.clone();
    }
    let text = root.strip_backtrace();
    let mut text = text.as_str();
    let parts = [
        "Arrow error: ",
        "Execution error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
        "Error during planning: ",
    ];
    while let Some(rest) = parts.iter().find_map(|part| text.strip_prefix(part)) {
        text = rest;
    }
    let mut letters = text.trim_end_matches('.').chars();
    match (letters.next(), letters.clone().next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        (Some(first), _) => std::iter::once(first).chain(letters).collect(),
        (None, _) => "a value could not be computed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::error::ArrowError;

    use super::*;

    #[test]
    fn a_reason_says_nothing_of_the_parts_that_it_went_through() {
        let cast = ArrowError::CastError("Cannot cast string 'x' to value of Int64 type".into());
        for (error, expected) in [
            (
                DataFusionError::from(cast),
                "cannot cast string 'x' to value of Int64 type",
            ),
            (
                DataFusionError::External(Box::new(Error::user("1 / 0 divides by zero"))),
                "1 / 0 divides by zero",
            ),
            (
                DataFusionError::Execution("UTC is no number.".into()),
                "UTC is no number",
            ),
        ] {
            assert_eq!(reason_of(&error), expected);
        }
    }
}
