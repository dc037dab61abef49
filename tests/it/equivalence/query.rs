//! A query: a view over the source, perhaps one over it, and both as Zeta takes them.

/// What windows a query is over, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Windows {
    None,
    Tumble {
        size: i64,
        offset: i64,
    },
    /// `GROUP BY date_bin(…)` in place of a function in FROM.
    Bin {
        size: i64,
    },
    Hop {
        slide: i64,
        size: i64,
    },
    Cumulate {
        step: i64,
        size: i64,
    },
    Session {
        gap: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sets {
    One,
    Cube,
    Rollup,
    /// The keys, and all together.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Emit {
    Changes,
    OnWindowClose,
    Every,
}

/// What a query is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    Plain,
    /// Some rows of the source, and others of it with other values.
    Union,
}

/// A view over the source, and perhaps one over it.
#[derive(Clone, Debug)]
pub struct Query {
    pub input: Input,
    pub windows: Windows,
    pub lateness: i64,
    pub keys: Vec<&'static str>,
    pub aggregates: Vec<&'static str>,
    pub filter: Option<&'static str>,
    pub having: Option<&'static str>,
    /// How the keys are grouped by, beside the bounds of the window.
    pub sets: Sets,
    pub emit: Emit,
    pub above: Option<Above>,
}

#[derive(Clone, Debug)]
pub struct Above {
    pub sql: String,
    pub emit: Emit,
}

impl Query {
    /// The lower view as a query of its own, over the rows that `src` has now.
    pub fn ad_hoc(&self) -> String {
        self.select(&self.windowed())
    }

    /// The rows in their windows, as Zeta takes it.
    fn windowed(&self) -> String {
        let input = self.input("");
        match self.windows {
            Windows::None | Windows::Bin { .. } => input,
            Windows::Tumble { size, offset: 0 } => format!("TUMBLE({input}, ts, INTERVAL '{size} seconds')"),
            Windows::Tumble { size, offset } => {
                format!("TUMBLE({input}, ts, INTERVAL '{size} seconds', INTERVAL '{offset} seconds')")
            }
            Windows::Hop { slide, size } => {
                format!("HOP({input}, ts, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')")
            }
            Windows::Cumulate { step, size } => {
                format!("CUMULATE({input}, ts, INTERVAL '{step} seconds', INTERVAL '{size} seconds')")
            }
            Windows::Session { gap } => {
                let key: String = self.keys.iter().map(|key| format!(", {key}")).collect();
                let from = match self.filter {
                    Some(filter) => format!("(SELECT * FROM {input} WHERE {filter})"),
                    None => input,
                };
                format!("SESSION({from}, ts, INTERVAL '{gap} seconds'{key})")
            }
        }
    }

    /// As Zeta takes it.
    pub fn views(&self) -> Vec<String> {
        let with = match (self.windows, self.lateness) {
            // Some aggregates keep all rows.
            (Windows::None, _) => " WITH (unbounded_state = 'allow')".to_owned(),
            (_, 0) => String::new(),
            (_, lateness) => format!(" WITH (allowed_lateness = '{lateness} seconds')"),
        };
        let below = format!(
            "CREATE MATERIALIZED VIEW below{with} AS {}{}",
            self.ad_hoc(),
            self.emit.sql()
        );
        let above = self
            .above
            .iter()
            .map(|above| format!("CREATE MATERIALIZED VIEW above AS {}{}", above.sql, above.emit.sql()));
        std::iter::once(below).chain(above).collect()
    }

    /// The query over rows that stand in `from`.
    pub fn select(&self, from: &str) -> String {
        let bin = match self.windows {
            Windows::Bin { size } => format!("date_bin(INTERVAL '{size} seconds', ts)"),
            _ => String::new(),
        };
        let bound = |name: &&str| match self.windows {
            Windows::Bin { .. } => bin.clone(),
            _ => name.to_string(),
        };
        let groups: Vec<String> = self.bounds().iter().map(bound).collect();
        let keys = self
            .keys
            .iter()
            .enumerate()
            .map(|(index, key)| format!("{key} AS g{index}"));
        let bounds = self.bounds().iter().map(|name| format!("{} AS {name}", bound(name)));
        let aggregates = self
            .aggregates
            .iter()
            .enumerate()
            .map(|(index, sql)| format!("{sql} AS a{index}"));
        let columns: Vec<String> = keys.chain(bounds).chain(aggregates).collect();
        let filter = match (self.windows, self.filter) {
            // Below the windows: see `views` and `below_for_batch`.
            (Windows::Session { .. }, _) | (_, None) => String::new(),
            (_, Some(filter)) => format!(" WHERE {filter}"),
        };
        let keys_of = |all: &str, none: &[String]| {
            let with = |keys: String| {
                std::iter::once(keys)
                    .chain(none.iter().cloned())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            match (self.sets, self.keys.is_empty()) {
                (_, true) => none.join(", "),
                (Sets::One, _) => with(all.to_owned()),
                (Sets::Cube, _) => with(format!("CUBE ({all})")),
                (Sets::Rollup, _) => with(format!("ROLLUP ({all})")),
                (Sets::Both, _) => format!("GROUPING SETS (({}), ({}))", with(all.to_owned()), none.join(", ")),
            }
        };
        let group = match keys_of(&self.keys.join(", "), &groups) {
            none if none.is_empty() => String::new(),
            groups => format!(" GROUP BY {groups}"),
        };
        let having = self
            .having
            .map(|having| format!(" HAVING {having}"))
            .unwrap_or_default();
        format!("SELECT {} FROM {from}{filter}{group}{having}", columns.join(", "))
    }

    /// The rows that it is over, of `src`; `more` are columns beside those of the source.
    pub fn input(&self, more: &str) -> String {
        match self.input {
            Input::Plain => "src".to_owned(),
            Input::Union => format!(
                "(SELECT k, s, i, e, f, d, b, u, ts{more} FROM src WHERE u % 3 <> 0 UNION ALL \
                 SELECT k + 1, upper(s), i, e, -f, d, NOT b, u + 1000000, ts{more} FROM src WHERE 0 < i)"
            ),
        }
    }

    pub fn bounds(&self) -> &'static [&'static str] {
        match self.windows {
            Windows::None => &[],
            Windows::Bin { .. } => &["window_start"],
            _ => &["window_start", "window_end"],
        }
    }
}

impl Emit {
    pub fn sql(self) -> &'static str {
        match self {
            Self::Changes => "",
            Self::OnWindowClose => " EMIT ON WINDOW CLOSE",
            Self::Every => " EMIT EVERY INTERVAL '1 second'",
        }
    }
}
