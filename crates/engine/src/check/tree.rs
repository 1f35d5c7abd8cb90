//! Reads what an expression uses from the tree that the server keeps of a view (`pg_rewrite.ev_action`), PostgreSQL 14 to 18.
//!
//! The tree is asked and not the text: only the server knows which function a name and its arguments mean.

use std::{collections::BTreeSet, iter::Peekable, str::Chars};

/// What a tree uses, by object id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Functions, those behind operators included.
    pub(super) functions: BTreeSet<u32>,
    /// Whether it asks for the time or the user by a key word (`CURRENT_TIMESTAMP`, `CURRENT_USER`).
    pub(super) key_word: bool,
    /// Whether it reads a column of the outermost FROM's `target`.
    pub(super) target_row: bool,
    /// Tables and views that its subqueries read.
    pub(super) tables: BTreeSet<u32>,
}

#[derive(Default)]
struct Node {
    kind: String,
    alias: String,
    relid: u32,
    is_relation: bool,
    varno: usize,
    levels_up: usize,
}

/// Reads the text of a node tree.
pub(super) fn read(text: &str) -> Uses {
    let mut uses = Uses::default();
    let mut open: Vec<Node> = Vec::new();
    let mut tokens = Tokens { rest: text.chars().peekable() };
    // The outermost FROM: how many tables so far (`old` and `new` come first up to PostgreSQL 15), and which of them is the target.
    let (mut outermost, mut target) = (0, None);
    let mut field = String::new();
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "{" => open.push(Node { kind: tokens.next().unwrap_or_default(), ..Node::default() }),
            "}" => {
                let depth = open.iter().filter(|node| node.kind == "QUERY").count();
                let Some(node) = open.pop() else { break };
                match node.kind.as_str() {
                    "ALIAS" => open.iter_mut().rev().take(1).for_each(|parent| parent.alias.clone_from(&node.alias)),
                    // The node's name up to PostgreSQL 14, and since.
                    "RTE" | "RANGETBLENTRY" if depth == 1 => {
                        outermost += 1;
                        target = target.or((node.alias == "target").then_some(outermost));
                    }
                    "RTE" | "RANGETBLENTRY" if node.is_relation => _ = uses.tables.insert(node.relid),
                    "VAR" => uses.target_row |= depth == node.levels_up + 1 && Some(node.varno) == target,
                    "SQLVALUEFUNCTION" => uses.key_word = true,
                    _ => {}
                }
            }
            _ if token.starts_with(':') => field = token,
            _ => {
                if let Some(node) = open.last_mut() {
                    note(&field, &token, node, &mut uses);
                }
                field.clear();
            }
        }
    }
    uses
}

fn note(field: &str, value: &str, node: &mut Node, uses: &mut Uses) {
    let number = || value.parse().unwrap_or(0);
    match field {
        ":funcid" | ":opfuncid" | ":aggfnoid" | ":winfnoid" if number() != 0 => _ = uses.functions.insert(number()),
        ":aliasname" => value.clone_into(&mut node.alias),
        ":relid" => node.relid = number(),
        ":rtekind" => node.is_relation = value == "0",
        ":varno" => node.varno = value.parse().unwrap_or(0),
        ":varlevelsup" => node.levels_up = value.parse().unwrap_or(0),
        _ => {}
    }
}

/// Braces, and the words between blanks; a backslash takes the character after it as it is.
struct Tokens<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Iterator for Tokens<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.rest.next_if(|c| c.is_whitespace() || "()".contains(*c)).is_some() {}
        let first = self.rest.next_if(|c| "{}".contains(*c));
        if let Some(brace) = first {
            return Some(brace.to_string());
        }
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| !c.is_whitespace() && !"(){}".contains(*c)) {
            word.extend(if c == '\\' { self.rest.next() } else { Some(c) });
        }
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_as_the_targets_only_where_it_belongs_to_the_outermost_target() {
        let from = "{RTE :alias {ALIAS :aliasname stage} :rtekind 0 :relid 7} {RTE :alias {ALIAS :aliasname target} :rtekind 0 :relid 8}";
        let tree = |inner: &str| {
            format!(
                "({{QUERY :rtable ({from}) :quals {{SUBLINK :subselect {{QUERY :rtable ({{RTE :alias {{ALIAS :aliasname target}} :rtekind 0 :relid 9}}) :quals {inner}}}}}}})"
            )
        };
        let inner = read(&tree("{VAR :varno 2 :varattno 1 :varlevelsup 0}"));
        assert_eq!((inner.target_row, inner.tables), (false, BTreeSet::from([9])));
        assert!(read(&tree("{VAR :varno 2 :varattno 1 :varlevelsup 1}")).target_row);
        assert!(!read(&tree("{VAR :varno 1 :varattno 1 :varlevelsup 1}")).target_row);
    }

    #[test]
    fn what_stands_in_a_name_is_no_field() {
        let uses = read(
            r#"{QUERY :resname a\ :funcid\ 5\ \{SQLVALUEFUNCTION :colnames (":funcid" "6") {FUNCEXPR :funcid 12 :args <>}}"#,
        );
        assert_eq!(uses, Uses { functions: BTreeSet::from([12]), ..Uses::default() });
    }
}
