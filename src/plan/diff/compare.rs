//! What becomes of each view when a state meets an edited pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use datafusion::{
    common::{
        DataFusionError,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    physical_expr::{PhysicalExpr, conjunction, expressions::Column},
};

use super::{
    ColumnShape, OperatorShape, Outline, Outlines, RowsShape, Shapes, SourceShape, Term, ViewShape,
    meaning::{Meaning, exact},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on where it was.
    Same,
    /// It goes on with its state; what is computed of that is another.
    Resumes,
    /// It takes up what the views that it reads hold.
    Anew,
    /// It was not there, and reads the source.
    New,
    /// It is forgotten.
    Dropped,
    /// Its state is of no use: its rows have to be read again.
    Rebuild,
}

impl Verdict {
    /// Whether rows of the source have to be read again.
    pub fn needs_rebuild(self) -> bool {
        matches!(self, Self::New | Self::Rebuild)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::Resumes => "resumes",
            Self::Anew => "anew",
            Self::New => "new",
            Self::Dropped => "dropped",
            Self::Rebuild => "rebuild",
        })
    }
}

/// What becomes of a view.
#[derive(Clone, Debug)]
pub struct Change {
    pub view: String,
    pub verdict: Verdict,
    /// What differs, as sentences.
    pub reasons: Vec<String>,
    /// Where it goes on with its state.
    pub takeover: Option<Takeover>,
}

/// How a view takes up the state of before.
#[derive(Clone, Debug)]
pub struct Takeover {
    pub operators: Vec<OperatorTakeover>,
    pub rows: RowsFrom,
    /// Its rows are what they were, and under the same names.
    pub has_same_rows: bool,
    /// They come in the epochs in which they would have come before.
    pub has_same_epochs: bool,
    /// Late rows have the columns of before.
    pub keeps_late: bool,
    /// Why it is short of rows that could not be computed, if there were any: as sentences.
    pub lacks: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct OperatorTakeover {
    /// Its number in the dataflow of before.
    pub before: usize,
    pub now: usize,
    /// Which columns of its state it takes, where those are not all, in their order.
    pub columns: Option<Vec<usize>>,
}

/// Where the rows of a view come from that goes on.
#[derive(Clone, Debug)]
pub enum RowsFrom {
    /// They are what they were; columns may have other names.
    Before,
    /// Of the rows of before, those that pass, with these columns.
    Computed {
        filter: Option<Arc<dyn PhysicalExpr>>,
        columns: Vec<Arc<dyn PhysicalExpr>>,
    },
    /// The last operator with state holds all of it.
    State,
}

/// What becomes of each view, in the order of creation, those that are gone behind. Views in `wanted` are to be computed anew; those in
/// `failed` set rows aside that could not be computed, where that is known.
///
/// # Errors
/// With what differs, where the source is another one: then positions mean nothing any more.
pub fn changes_of(
    before: &Shapes,
    now: &Outlines,
    wanted: &BTreeSet<String>,
    failed: Option<&BTreeSet<String>>,
) -> Result<Vec<Change>, Vec<String>> {
    let differences = source_differences(&before.source, &now.shapes.source);
    if !differences.is_empty() {
        return Err(differences);
    }
    let mut changes: Vec<Change> = Vec::new();
    for view in &now.shapes.views {
        let has_failed = failed.map(|failed| failed.contains(&view.name));
        let mut change = change_of(before.view(&view.name), view, now.outline(&view.name), has_failed);
        let made_anew = |name: &&String| {
            let is_anew = |verdict| matches!(verdict, Verdict::Anew | Verdict::New | Verdict::Rebuild);
            changes
                .iter()
                .any(|change| change.view == **name && is_anew(change.verdict))
        };
        if let Some(below) = view.reads.iter().find(made_anew)
            && change.takeover.is_some()
        {
            change.reasons = vec![format!("`{}` reads `{below}`, which is computed anew", view.name)];
            change.takeover = None;
            change.verdict = Verdict::Rebuild;
        }
        if wanted.contains(&view.name) && change.takeover.is_some() {
            change.reasons.push("it was asked for".to_owned());
            change.takeover = None;
            change.verdict = Verdict::Rebuild;
        }
        if change.verdict.needs_rebuild() && !view.reads_source {
            change.verdict = Verdict::Anew;
        }
        changes.push(change);
    }
    let gone = before.views.iter().filter(|view| now.shapes.view(&view.name).is_none());
    changes.extend(gone.map(|view| Change::dropped(&view.name)));
    Ok(changes)
}

impl Change {
    /// Whether sinks of the view go on where they are. `replays`: epochs that may be published run again.
    pub fn lets_sinks_go_on(&self, replays: bool) -> bool {
        self.takeover
            .as_ref()
            .is_some_and(|takeover| takeover.has_same_rows && (takeover.has_same_epochs || !replays))
    }

    pub fn dropped(view: &str) -> Self {
        Self {
            view: view.to_owned(),
            verdict: Verdict::Dropped,
            reasons: Vec::new(),
            takeover: None,
        }
    }
}

fn source_differences(before: &SourceShape, now: &SourceShape) -> Vec<String> {
    let names: BTreeSet<&String> = before.identity.keys().chain(now.identity.keys()).collect();
    let differs = names.into_iter().filter_map(|name| {
        let (was, is) = (before.identity.get(name), now.identity.get(name));
        let said = |value: Option<&String>| value.map_or("not set".to_owned(), |value| format!("`{value}`"));
        let kind = if now.is_table { "table" } else { "source" };
        (was != is).then(|| format!("{name} of {kind} `{}` was {}, is {}", now.name, said(was), said(is)))
    });
    differs.collect()
}

fn change_of(before: Option<&ViewShape>, now: &ViewShape, outline: &Outline, has_failed: Option<bool>) -> Change {
    let view = now.name.clone();
    let Some(before) = before else {
        return Change {
            view,
            verdict: Verdict::New,
            reasons: vec![],
            takeover: None,
        };
    };
    let taken = takeover(before, now, outline).and_then(|(takeover, mut reasons)| {
        if !takeover.lacks.is_empty() {
            match has_failed {
                Some(true) => return Err(takeover.lacks),
                Some(false) => {}
                None => {
                    let otherwise = match now.reads_source {
                        true => format!("it is refused without --rebuild {view}"),
                        false => "it is computed anew".to_owned(),
                    };
                    let lacks = takeover.lacks.join("; ");
                    reasons.push(format!("where `{view}$errors` has had rows, {otherwise}: {lacks}"));
                }
            }
        }
        Ok((takeover, reasons))
    });
    match taken {
        Ok((takeover, reasons)) => Change {
            view,
            verdict: if reasons.is_empty() {
                Verdict::Same
            } else {
                Verdict::Resumes
            },
            reasons,
            takeover: Some(takeover),
        },
        Err(reasons) => Change {
            view,
            verdict: Verdict::Rebuild,
            reasons,
            takeover: None,
        },
    }
}

/// How it goes on, and what is new of it, or why it cannot.
fn takeover(before: &ViewShape, now: &ViewShape, outline: &Outline) -> Result<(Takeover, Vec<String>), Vec<String>> {
    let view = &now.name;
    let titles = |shape: &ViewShape| {
        shape
            .operators
            .iter()
            .map(|operator| operator.title.clone())
            .collect::<Vec<_>>()
    };
    if titles(before) != titles(now) {
        let said = |titles: Vec<String>| match titles.as_slice() {
            [] => "nothing with state".to_owned(),
            titles => titles.join(", then "),
        };
        return Err(vec![format!(
            "`{view}` had {}, and has {}",
            said(titles(before)),
            said(titles(now))
        )]);
    }
    let (mut reasons, mut lacks) = (Vec::new(), Vec::new());
    let mut operators = Vec::new();
    for (was, is) in before.operators.iter().zip(&now.operators) {
        rows_differences(view, &was.rows, &is.rows, &mut reasons);
        for (name, term) in &is.aspects {
            let of_before = was.aspects.iter().find(|(other, _)| other == name);
            match of_before {
                Some((_, other)) => reasons.extend(was_is(name, view, other, term)),
                None => reasons.push(format!("{name} of `{view}` is {}", term.shown)),
            }
        }
        for (name, term) in &was.aspects {
            if !is.aspects.iter().any(|(other, _)| other == name) {
                reasons.push(format!("{name} of `{view}` was {}, and there is none", term.shown));
            }
        }
        operators.push(OperatorTakeover {
            before: was.node,
            now: is.node,
            columns: state_columns(view, was, is, &mut reasons, &mut lacks),
        });
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let is_held_alike = match (&before.hold, &now.hold) {
        (Some((was, _)), Some((is, _))) => {
            operators.push(OperatorTakeover {
                before: *was,
                now: *is,
                columns: None,
            });
            true
        }
        (Some((_, interval)), None) => {
            return Err(vec![format!(
                "emit of `{view}` was {}, and rows may wait for that",
                interval.shown
            )]);
        }
        (None, _) => false,
    };
    let meanings =
        |shape: &ViewShape| -> Vec<String> { shape.columns.iter().map(|column| column.meaning.is.clone()).collect() };
    let named = |shape: &ViewShape| -> Vec<(String, String)> {
        let columns = shape.columns.iter();
        columns
            .map(|column| (column.name.clone(), column.data_type.clone()))
            .collect()
    };
    let is_alike = before.top == now.top && meanings(before) == meanings(now);
    if is_held_alike && !is_alike {
        let mut reasons = news_of(before, now);
        reasons.push(format!(
            "rows of `{view}` wait for their interval as they were computed before"
        ));
        return Err(reasons);
    }
    let (rows, mut news) = if is_alike {
        (RowsFrom::Before, news_of(before, now))
    } else {
        rows_differences(
            view,
            &before.top.without_filters(),
            &now.top.without_filters(),
            &mut reasons,
        );
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let news = news_of(before, now);
        let is_all_held = outline.is_held_by_state && now.hold.is_none();
        let short_of = short_of(before, now);
        match computed(before, now, outline) {
            Ok(rows) if short_of.is_empty() => (rows, news),
            _ if is_all_held => (RowsFrom::State, news),
            Ok(rows) => {
                lacks.extend(short_of);
                (rows, news)
            }
            Err(reasons) => return Err(reasons),
        }
    };
    let interval = |shape: &ViewShape| shape.hold.as_ref().map(|(_, interval)| interval.clone());
    let has_same_epochs = interval(before) == interval(now);
    if !has_same_epochs {
        let said = |shape: &ViewShape| {
            shape
                .hold
                .as_ref()
                .map_or("changes".to_owned(), |(_, hold)| hold.shown.clone())
        };
        news.push(format!("emit of `{view}` was {}, is {}", said(before), said(now)));
    }
    let keeps_late = has_same_late_columns(before, now);
    if !keeps_late && !before.late.is_empty() {
        news.push(format!(
            "late rows of `{view}` have other columns now, and those that `{view}$late` holds are not kept"
        ));
    }
    let takeover = Takeover {
        operators,
        rows,
        has_same_rows: is_alike && named(before) == named(now) && before.key == now.key,
        has_same_epochs,
        keeps_late,
        lacks,
    };
    Ok((takeover, news))
}

impl RowsShape {
    fn without_filters(&self) -> Self {
        Self {
            filters: Vec::new(),
            ..self.clone()
        }
    }
}

/// Whether late rows hold the same, by whatever names.
fn has_same_late_columns(before: &ViewShape, now: &ViewShape) -> bool {
    match before.late_columns.is_empty() || now.late_columns.is_empty() {
        true => before.late == now.late,
        false => before.late_columns == now.late_columns,
    }
}

fn rows_differences(view: &str, was: &RowsShape, is: &RowsShape, reasons: &mut Vec<String>) {
    if was.base.is != is.base.is {
        reasons.push(match was.base.shown == is.base.shown {
            true => format!("`{view}` reads {}, whose rows are others now", is.base.shown),
            false => format!("input of `{view}` was {}, is {}", was.base.shown, is.base.shown),
        });
    }
    let all = |terms: &[Term], join: &str| Term {
        is: terms.iter().map(|term| term.is.as_str()).collect::<Vec<_>>().join(join),
        shown: match terms {
            [] => "none".to_owned(),
            terms => terms
                .iter()
                .map(|term| term.shown.as_str())
                .collect::<Vec<_>>()
                .join(join),
        },
    };
    reasons.extend(was_is(
        "filter",
        view,
        &all(&was.filters, " AND "),
        &all(&is.filters, " AND "),
    ));
    reasons.extend(was_is(
        "rows per row",
        view,
        &all(&was.steps, ", "),
        &all(&is.steps, ", "),
    ));
}

fn was_is(what: &str, view: &str, was: &Term, is: &Term) -> Option<String> {
    if was.is == is.is {
        return None;
    }
    Some(match was.shown == is.shown {
        true => format!(
            "{what} of `{view}` is {} as before, but brackets, the type of a column or a function in it are others",
            is.shown
        ),
        false => format!("{what} of `{view}` was {}, is {}", was.shown, is.shown),
    })
}

/// Which columns of the state of before an operator takes, where those are not all of them as they are.
fn state_columns(
    view: &str,
    was: &OperatorShape,
    is: &OperatorShape,
    reasons: &mut Vec<String>,
    lacks: &mut Vec<String>,
) -> Option<Vec<usize>> {
    if was.aggregates == is.aggregates {
        return None;
    }
    let mut starts = Vec::new();
    let mut next = was.columns_before.unwrap_or_default();
    for (_, width) in &was.aggregates {
        starts.push(next);
        next += width;
    }
    let mut columns: Vec<usize> = (0..was.columns_before.unwrap_or_default()).collect();
    let mut taken = BTreeSet::new();
    let mut is_missing = false;
    for (term, width) in &is.aggregates {
        let found = was.aggregates.iter().position(|(other, _)| other.is == term.is);
        match found {
            Some(place) => {
                taken.insert(place);
                columns.extend(starts[place]..starts[place] + width);
            }
            None => {
                is_missing = true;
                let was_there = was.aggregates.iter().any(|(other, _)| other.shown == term.shown);
                reasons.push(match was_there {
                    true => format!(
                        "aggregate {} of `{view}` is called as before, but brackets, the type of a column or a function in it are others",
                        term.shown
                    ),
                    false => format!("aggregate {} of `{view}` is new", term.shown),
                });
            }
        }
    }
    let gone = was
        .aggregates
        .iter()
        .enumerate()
        .filter(|(place, _)| !taken.contains(place));
    let gone: Vec<String> = gone.map(|(_, (term, _))| term.shown.clone()).collect();
    if is_missing || was.columns_before.is_none() {
        reasons.extend(
            gone.iter()
                .map(|shown| format!("aggregate {shown} of `{view}` is gone")),
        );
    } else {
        // A row whose argument fails counts in no aggregate, and a group whose result fails is handed on by none.
        lacks.extend(gone.iter().map(|shown| {
            format!(
                "aggregate {shown} of `{view}` is gone, and what could not be computed for it is in no other either"
            )
        }));
    }
    if !is_missing && was.columns_before.is_none() && gone.is_empty() {
        reasons.push(format!("aggregates of `{view}` stand in another order"));
    }
    Some(columns)
}

/// What is another of the columns and filters behind the state.
fn news_of(before: &ViewShape, now: &ViewShape) -> Vec<String> {
    let view = &now.name;
    let mut news = Vec::new();
    let of = |shape: &ViewShape| -> BTreeMap<String, String> {
        let columns = shape
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.meaning.is.clone()));
        columns.collect()
    };
    let (was, is) = (of(before), of(now));
    for column in &now.columns {
        let name = &column.name;
        let same = before
            .columns
            .iter()
            .find(|other| other.meaning.is == column.meaning.is);
        match (was.get(name), same) {
            (Some(meaning), _) if *meaning == column.meaning.is => {}
            (Some(_), _) => news.push(format!("column `{name}` of `{view}` is {} now", column.meaning.shown)),
            (None, Some(other)) if !is.contains_key(&other.name) => {
                news.push(format!("column `{}` of `{view}` is named `{name}` now", other.name));
            }
            (None, _) => news.push(format!("column `{name}` of `{view}` is new")),
        }
    }
    for column in &before.columns {
        let is_renamed = now.columns.iter().any(|other| other.meaning.is == column.meaning.is);
        if !is.contains_key(&column.name) && !is_renamed {
            news.push(format!("column `{}` of `{view}` is gone", column.name));
        }
    }
    let names = |shape: &ViewShape| {
        shape
            .columns
            .iter()
            .map(|column| column.name.clone())
            .collect::<Vec<_>>()
    };
    if news.is_empty() && names(before) != names(now) {
        news.push(format!("columns of `{view}` stand in another order"));
    }
    for filter in &now.top.filters {
        if !before.top.filters.contains(filter) {
            news.push(format!("rows of `{view}` are filtered by {}", filter.shown));
        }
    }
    for filter in &before.top.filters {
        if !now.top.filters.contains(filter) {
            news.push(format!(
                "rows of `{view}` are not filtered by {} any more",
                filter.shown
            ));
        }
    }
    news
}

/// Columns that are gone and failed for rows that would be there without them.
fn short_of(before: &ViewShape, now: &ViewShape) -> Vec<String> {
    let is_gone = |column: &&ColumnShape| !now.columns.iter().any(|other| other.meaning == column.meaning);
    let gone = before.columns.iter().filter(|column| column.may_fail).filter(is_gone);
    gone.map(|column| {
        format!(
            "column `{}` of `{}` is another or gone, and rows for which it could not be computed are not kept",
            column.name, now.name
        )
    })
    .collect()
}

/// The rows of now out of those of before.
///
/// # Errors
/// With what the rows of before do not tell.
fn computed(before: &ViewShape, now: &ViewShape, outline: &Outline) -> Result<RowsFrom, Vec<String>> {
    let view = &now.name;
    let mut reasons = Vec::new();
    for filter in &before.top.filters {
        if !now.top.filters.iter().any(|other| other.is == filter.is) {
            reasons.push(format!(
                "rows of `{view}` were filtered by {}, and those that did not pass are not kept",
                filter.shown
            ));
        }
    }
    let held: BTreeMap<&str, usize> = (before.columns.iter().enumerate().rev())
        .map(|(index, column)| (column.meaning.is.as_str(), index))
        .collect();
    let known: BTreeSet<&str> = before.top.filters.iter().map(|filter| filter.is.as_str()).collect();
    let mut filters = Vec::new();
    for filter in &outline.filters {
        if known.contains(exact(&filter.expr).as_str()) {
            continue;
        }
        match over_rows(filter, before, &held) {
            Some(filter) => filters.push(filter),
            None => reasons.push(format!(
                "the rows that `{view}` keeps do not hold what its filter is computed of"
            )),
        }
    }
    let mut columns = Vec::new();
    for (column, meaning) in now.columns.iter().zip(&outline.columns) {
        match over_rows(meaning, before, &held) {
            Some(expr) => columns.push(expr),
            None => reasons.push(format!(
                "column `{}` of `{view}` is {} now, which the rows that it keeps do not tell",
                column.name, column.meaning.shown
            )),
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let filter = (!filters.is_empty()).then(|| conjunction(filters));
    Ok(RowsFrom::Computed { filter, columns })
}

/// An expression over rows of before; `None` where it takes something that these do not hold.
fn over_rows(meaning: &Meaning, before: &ViewShape, held: &BTreeMap<&str, usize>) -> Option<Arc<dyn PhysicalExpr>> {
    let rewritten = Arc::clone(&meaning.expr).transform_down(|node| {
        if let Some(index) = held.get(exact(&node).as_str()) {
            let column = Column::new(&before.columns[*index].name, *index);
            let column: Arc<dyn PhysicalExpr> = Arc::new(column);
            return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
        }
        match node.downcast_ref::<Column>() {
            Some(column) => Err(DataFusionError::Plan(format!("{} is not held", column.name()))),
            None => Ok(Transformed::no(node)),
        }
    });
    rewritten.ok().map(|rewritten| rewritten.data)
}
