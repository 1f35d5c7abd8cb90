//! Chunks: disjoint pieces of the stage table that together cover it, and the ranges of them that workers are handed.

use serde::{Deserialize, Serialize};

use crate::{
    ident::{self, Ident, TableName},
    table::Leaf,
};

/// Sessions idle at the end of a run when the last chunks are few: plan at least so many for each.
pub const CHUNKS_A_SESSION: u64 = 8;

/// Below this a chunk's own cost (about 1 ms of claim and finish) outweighs what an even end gains.
const SMALLEST_SHARE: u64 = 500;

/// The Map's items: at most 800 (its interpreters and its payload are bounded), and some for each session so that the end is even.
const MOST_ITEMS: usize = 800;
const ITEMS_A_SESSION: usize = 8;

/// A column that key ranges cut along: a plain column of the stage table that holds the target's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutColumn {
    /// The stage table's column.
    pub column: Ident,
    /// Its type, as SQL writes it: boundaries are cast to it.
    pub type_name: String,
    /// Its collation, quoted; `None` where its type has none. A cast alone has the database's.
    #[serde(default)]
    pub collation: Option<String>,
    /// Whether it can be NULL.
    pub nullable: bool,
}

impl CutColumn {
    /// A value of it that the server wrote, as SQL.
    pub fn value(&self, text: &str) -> String {
        format!("CAST({} AS {})", ident::literal(text), self.type_name)
    }
}

/// Where a row lies in its heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    /// The block.
    pub block: u32,
    /// Its place in the block, from 1; 0 stands for the block's start.
    pub offset: u16,
}

impl Tid {
    /// The start of a block.
    pub const fn block(block: u32) -> Self {
        Self { block, offset: 0 }
    }

    /// Reads `(block,offset)`.
    pub fn parse(text: &str) -> Option<Self> {
        let (block, offset) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some(Self { block: block.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// As the server writes it.
impl std::fmt::Display for Tid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({},{})", self.block, self.offset)
    }
}

/// Which rows of the stage a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// Blocks of one heap: `low` inclusive, `high` exclusive, `None` for all that follow.
    Blocks {
        /// The heap.
        leaf: Leaf,
        /// Where it starts.
        low: Tid,
        /// Where the next chunk starts.
        high: Option<Tid>,
    },
    /// Keys above `low` up to and including `high`, without NULLs; `None` leaves the range open. A boundary is the text of each cut column's
    /// value as the server wrote it under the run's settings.
    Keys {
        /// The last key of the chunk before.
        low: Option<Vec<String>>,
        /// The last key of this one.
        high: Option<Vec<String>>,
    },
    /// The rows with a NULL in any cut column: no comparison finds them.
    NullKeys,
    /// Values of the cut column that the job's own query gave, both inclusive as in Oracle, in the server's text.
    Ids {
        /// The first value.
        low: String,
        /// The last value.
        high: String,
    },
    /// The rows that were set aside before and are tried again in this chunk.
    Rejects {
        /// The run.
        run: i64,
        /// The chunk.
        chunk: i32,
    },
}

/// Where a chunk is cut in two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Middle {
    /// The first row of the second half.
    Tid(Tid),
    /// The last key of the first half, and the first one of the second.
    Keys {
        /// The last key of the first half.
        last: Vec<String>,
        /// The first key of the second half.
        next: Vec<String>,
    },
}

impl Range {
    /// The relation to read, aliased `stage`.
    pub fn from_clause(&self, stage: &TableName) -> String {
        match self {
            // ONLY: on a partitioned parent a block range selects those blocks in every partition.
            Self::Blocks { leaf, .. } => format!("ONLY {} AS stage", leaf.name),
            _ => format!("{stage} AS stage"),
        }
    }

    /// Both halves; `None` where this range can't be cut there.
    pub fn split(&self, middle: Middle) -> Option<[Self; 2]> {
        match (self, middle) {
            (Self::Blocks { leaf, low, high }, Middle::Tid(tid)) => Some([
                Self::Blocks { leaf: leaf.clone(), low: *low, high: Some(tid) },
                Self::Blocks { leaf: leaf.clone(), low: tid, high: *high },
            ]),
            (Self::Keys { low, high }, Middle::Keys { last, .. }) => Some([
                Self::Keys { low: low.clone(), high: Some(last.clone()) },
                Self::Keys { low: Some(last), high: high.clone() },
            ]),
            (Self::Ids { low, high }, Middle::Keys { last, next }) => Some([
                Self::Ids { low: low.clone(), high: last.into_iter().next()? },
                Self::Ids { low: next.into_iter().next()?, high: high.clone() },
            ]),
            _ => None,
        }
    }

    /// The condition that holds for this chunk's rows, and for those of no other chunk.
    pub fn predicate(&self, cut: &[CutColumn]) -> String {
        match self {
            Self::Blocks { low, high, .. } => {
                let below = high.map(|high| format!(" AND stage.ctid < '{high}'::pg_catalog.tid")).unwrap_or_default();
                format!("stage.ctid >= '{low}'::pg_catalog.tid{below}")
            }
            Self::Keys { low, high } => {
                let bounds = [(">", low), ("<=", high)];
                let compared = bounds.iter().filter_map(|(op, bound)| Some(compare(cut, op, bound.as_ref()?)));
                // `(a, b) > (1, 5)` is true for `(2, NULL)`, which the NULL chunk holds.
                let not_null = cut.iter().filter(|c| c.nullable).map(|c| format!("stage.{} IS NOT NULL", c.column));
                let all: Vec<String> = compared.chain(not_null).collect();
                if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
            }
            Self::NullKeys => {
                let null = cut.iter().filter(|c| c.nullable).map(|c| format!("stage.{} IS NULL", c.column));
                format!("({})", null.collect::<Vec<_>>().join(" OR "))
            }
            Self::Ids { low, high } => {
                let [low, high] = [low, high].map(std::slice::from_ref);
                format!("{} AND {}", compare(cut, ">=", low), compare(cut, "<=", high))
            }
            // By their keys, which the mapping knows how to compute.
            Self::Rejects { .. } => "true".to_owned(),
        }
    }
}

/// A chunk's rows in words.
impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = |key: &[String]| format!("({})", key.join(", "));
        match self {
            Self::Blocks { leaf, low: Tid { block, offset: 0 }, high: None } => {
                write!(f, "{} blocks {block} on", leaf.name.as_in_sql())
            }
            Self::Blocks { leaf, low: Tid { block: low, offset: 0 }, high: Some(Tid { block: high, offset: 0 }) } => {
                write!(f, "{} blocks {low} to {}", leaf.name.as_in_sql(), high.saturating_sub(1))
            }
            Self::Blocks { leaf, low, high } => {
                let end = high.map_or_else(|| " on".to_owned(), |high| format!(" to before {high}"));
                write!(f, "{} rows {low}{end}", leaf.name.as_in_sql())
            }
            Self::Keys { low: None, high: None } => f.write_str("all keys"),
            Self::Keys { low: None, high: Some(high) } => write!(f, "keys up to {}", key(high)),
            Self::Keys { low: Some(low), high: None } => write!(f, "keys above {}", key(low)),
            Self::Keys { low: Some(low), high: Some(high) } => write!(f, "keys above {} up to {}", key(low), key(high)),
            Self::NullKeys => f.write_str("NULL keys"),
            Self::Ids { low, high } => write!(f, "{low} to {high}"),
            Self::Rejects { .. } => f.write_str("rows that were set aside"),
        }
    }
}

fn compare(cut: &[CutColumn], op: &str, bound: &[String]) -> String {
    let columns: Vec<String> = cut.iter().map(|c| format!("stage.{}", c.column)).collect();
    let values: Vec<String> = cut.iter().zip(bound).map(|(c, value)| c.value(value)).collect();
    if let ([column], [value]) = (columns.as_slice(), values.as_slice()) {
        format!("{column} {op} {value}")
    } else {
        format!("({}) {op} ({})", columns.join(", "), values.join(", "))
    }
}

/// The rows that a chunk gets: as asked, or fewer so that each session has chunks enough.
pub fn rows_a_chunk(asked: u32, staged: u64, parallelism: u32) -> u64 {
    let share = staged.div_ceil(CHUNKS_A_SESSION * u64::from(parallelism.max(1)));
    u64::from(asked).min(share.max(SMALLEST_SHARE)).max(1)
}

/// Cuts a heap of `pages` blocks into ranges of about `rows` rows, the last one open-ended: rows may lie in blocks that were added since.
pub fn cut_blocks(leaf: &Leaf, pages: u32, rows_a_page: f64, rows: u64) -> Vec<Range> {
    // At least one row a page: a chunk of `rows` pages is the worst that bloat can make.
    let step = (rows as f64 / rows_a_page.max(1.0)).floor().clamp(1.0, f64::from(u32::MAX)) as u32;
    let lows: Vec<u32> = (0..pages.max(1)).step_by(step as usize).collect();
    let highs = lows.iter().skip(1).map(|high| Some(*high)).chain([None]);
    let range = |(low, high): (&u32, Option<u32>)| Range::Blocks {
        leaf: leaf.clone(),
        low: Tid::block(*low),
        high: high.map(Tid::block),
    };
    lows.iter().zip(highs).map(range).collect()
}

/// Turns boundaries in ascending order into ranges, open at both ends, with a chunk for NULLs where a cut column can hold them.
pub fn cut_keys(boundaries: Vec<Vec<String>>, cut: &[CutColumn]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(boundaries.len() + 2);
    let mut low = None;
    for boundary in boundaries {
        ranges.push(Range::Keys { low: low.replace(boundary.clone()), high: Some(boundary) });
    }
    ranges.push(Range::Keys { low, high: None });
    if cut.iter().any(|column| column.nullable) {
        ranges.push(Range::NullKeys);
    }
    ranges
}

/// A range of chunk ids: what a worker is handed, and the Map's item. It names chunks, never rows. Fields that it does not know are left alone:
/// an executor's answer, which has more, is its next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The run.
    pub run: i64,
    /// The round in which it is worked on.
    pub round: i32,
    /// The first chunk's id.
    pub first: i32,
    /// The last chunk's id.
    pub last: i32,
    /// How many calls in a row moved nothing.
    #[serde(default)]
    pub stalled: u32,
}

/// Groups chunk ids, in ascending order, into as few items as keep every session busy to the end.
pub fn items(run: i64, round: i32, chunks: &[i32], parallelism: u32) -> Vec<Item> {
    let wanted = (parallelism as usize).saturating_mul(ITEMS_A_SESSION).clamp(1, MOST_ITEMS);
    let size = chunks.len().div_ceil(wanted).max(1);
    chunks
        .chunks(size)
        .filter_map(|group| Some(Item { run, round, first: *group.first()?, last: *group.last()?, stalled: 0 }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        Leaf { oid: 1, name: TableName::parse("s.t").unwrap(), filenode: 1 }
    }

    fn column(name: &str, nullable: bool) -> CutColumn {
        CutColumn { column: Ident::exact(name), type_name: "bigint".into(), collation: None, nullable }
    }

    #[test]
    fn block_ranges_follow_each_other_and_the_last_one_is_open() {
        let bounds = |pages, rows_a_page, rows| -> Vec<(u32, Option<u32>)> {
            cut_blocks(&leaf(), pages, rows_a_page, rows)
                .into_iter()
                .map(|range| match range {
                    Range::Blocks { low, high, .. } => (low.block, high.map(|high| high.block)),
                    _ => unreachable!(),
                })
                .collect()
        };
        assert_eq!(bounds(10, 50.0, 200), [(0, Some(4)), (4, Some(8)), (8, None)]);
        assert_eq!(bounds(0, 0.0, 5), [(0, None)]);
        assert_eq!(bounds(2, 1e9, 1), [(0, Some(1)), (1, None)]);
    }

    #[test]
    fn key_ranges_are_open_at_both_ends_and_nulls_have_their_own_chunk() {
        let cut = [column("a", false), column("b", true)];
        let bound = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let sql: Vec<String> =
            cut_keys(vec![bound("1", "5"), bound("2", "0")], &cut).iter().map(|range| range.predicate(&cut)).collect();
        assert_eq!(
            sql,
            [
                r#"(stage."a", stage."b") <= (CAST('1' AS bigint), CAST('5' AS bigint)) AND stage."b" IS NOT NULL"#,
                r#"(stage."a", stage."b") > (CAST('1' AS bigint), CAST('5' AS bigint)) AND (stage."a", stage."b") <= (CAST('2' AS bigint), CAST('0' AS bigint)) AND stage."b" IS NOT NULL"#,
                r#"(stage."a", stage."b") > (CAST('2' AS bigint), CAST('0' AS bigint)) AND stage."b" IS NOT NULL"#,
                r#"(stage."b" IS NULL)"#,
            ]
        );
        assert_eq!(cut_keys(vec![], &[column("a", false)]), [Range::Keys { low: None, high: None }]);
    }

    #[test]
    fn a_chunk_is_split_into_two_that_share_its_rows_and_no_others() {
        let cut = [column("a", false)];
        let halves = |range: Range, middle| range.split(middle).map(|halves| halves.map(|half| half.predicate(&cut)));
        let tid = |text| Tid::parse(text).unwrap();
        let keys = |last: &str, next: &str| Middle::Keys { last: vec![last.into()], next: vec![next.into()] };
        assert_eq!(
            halves(
                Range::Blocks { leaf: leaf(), low: Tid::block(7), high: Some(Tid::block(8)) },
                Middle::Tid(tid("(7,20)"))
            ),
            Some([
                "stage.ctid >= '(7,0)'::pg_catalog.tid AND stage.ctid < '(7,20)'::pg_catalog.tid".into(),
                "stage.ctid >= '(7,20)'::pg_catalog.tid AND stage.ctid < '(8,0)'::pg_catalog.tid".into(),
            ])
        );
        assert_eq!(
            halves(Range::Keys { low: None, high: Some(vec!["9".into()]) }, keys("4", "6")),
            Some([
                r#"stage."a" <= CAST('4' AS bigint)"#.into(),
                r#"stage."a" > CAST('4' AS bigint) AND stage."a" <= CAST('9' AS bigint)"#.into(),
            ])
        );
        assert_eq!(
            halves(Range::Ids { low: "1".into(), high: "9".into() }, keys("4", "6")),
            Some([
                r#"stage."a" >= CAST('1' AS bigint) AND stage."a" <= CAST('4' AS bigint)"#.into(),
                r#"stage."a" >= CAST('6' AS bigint) AND stage."a" <= CAST('9' AS bigint)"#.into(),
            ])
        );
        assert_eq!(halves(Range::NullKeys, keys("4", "6")), None);
    }

    #[test]
    fn chunks_shrink_until_every_session_has_some() {
        assert_eq!(rows_a_chunk(5_000, 40_000_000, 16), 5_000);
        assert_eq!(rows_a_chunk(5_000, 400_000, 16), 3_125);
        assert_eq!(rows_a_chunk(5_000, 1_000, 16), 500);
        assert_eq!(rows_a_chunk(10, 1_000, 16), 10);
        assert_eq!(rows_a_chunk(5_000, 0, 16), 500);
    }

    #[test]
    fn eight_thousand_chunks_pass_as_few_items_and_none_is_left_out() {
        let ids: Vec<i32> = (1..=8_000).collect();
        for parallelism in [1, 16, 1_000] {
            let items = items(7, 1, &ids, parallelism);
            assert!(items.len() <= MOST_ITEMS && items.len() <= parallelism as usize * ITEMS_A_SESSION);
            assert!(serde_json::to_vec(&items).unwrap().len() <= 200 * 1024);
            assert_eq!((items[0].first, items[items.len() - 1].last), (1, 8_000));
            assert!(items.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
        }
        assert_eq!(items(7, 1, &[], 4), []);
        assert_eq!(items(7, 1, &[3, 9], 4).len(), 2);
    }
}
