//! stub

/// The candidate that is most likely meant, where one is near enough.
pub fn nearest<'a>(_word: &str, _candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    todo!()
}
