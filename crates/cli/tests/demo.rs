//! The demo, small.

use crate::support::Db;

#[test]
fn the_demo_ends_equal_to_the_single_statement() {
    let db = Db { url: "not used".into(), folder: tempfile::tempdir().unwrap() };
    let demo = db.run(&["demo", "--rows", "2000", "--target-rows", "10000"]);
    assert_eq!(demo.code, Some(0), "{demo:?}");
    for fragment in
        ["COMPLETE", "1,910 staged = 200 inserted + 1,710 updated", "equal: all 10,200 rows", "times as fast"]
    {
        assert!(demo.out.contains(fragment), "{fragment}: {demo:?}");
    }
    assert_eq!(db.log(), "");
}
