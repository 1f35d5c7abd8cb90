//! Who owns a run: a command line (its host, process and start), or an execution, which can have several runs one after the other.

/// Between an execution's ARN and the number of its run: no execution's name holds one.
pub(super) const MARK: char = '#';

/// The owner of an execution's n-th run: its ARN, then `ARN#2`, `ARN#3`.
pub fn of_execution(execution: &str, sequence: u32) -> String {
    if sequence <= 1 { execution.to_owned() } else { format!("{execution}{MARK}{sequence}") }
}

/// The execution behind an owner, and which of its runs this is; `None` for a command line.
pub fn execution(owner: &str) -> Option<(&str, u32)> {
    if !owner.starts_with("arn:") {
        return None;
    }
    match owner.rsplit_once(MARK) {
        Some((execution, number)) => Some((execution, number.parse().ok()?)),
        None => Some((owner, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_names_its_execution_and_which_of_its_runs_it_is() {
        const ARN: &str = "arn:aws:states:eu-central-1:123456789012:execution:apply:one";
        for sequence in [1, 2, 30] {
            assert_eq!(execution(&of_execution(ARN, sequence)), Some((ARN, sequence)));
        }
        assert_eq!(of_execution(ARN, 1), ARN);
        assert_eq!(execution("host.example:7:1"), None);
    }
}
