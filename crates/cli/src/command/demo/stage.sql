-- The stage table, as DMS would leave it: {rows} rows in no order. Nine in ten are of accounts that exist, and one in twenty of those is flagged
-- as deleted, which the job leaves aside.

CREATE TABLE edw_ods_stg.stg_sm_account (
    seq_row_id              bigint GENERATED ALWAYS AS IDENTITY,
    operation_indicator     varchar(1) NOT NULL,
    poid_id0                bigint NOT NULL,
    group_obj_id0           bigint,
    account_no              varchar(60),
    account_type            varchar(30),
    residence_flag          integer,
    incorporated_flag       integer,
    business_type           integer,
    actg_cycle_dom          integer,
    billing_status          integer,
    exempt_from_collections integer,
    bal_grp_obj_id0         bigint,
    last_bill_ts            timestamp(0),
    payinfo_obj_id0         bigint,
    status                  integer,
    scenario_obj_id0        bigint,
    cust_seg_list           varchar(255),
    created_ts              timestamp(0),
    commit_ts               timestamp(0),
    mod_ts                  timestamp(0)
);

INSERT INTO edw_ods_stg.stg_sm_account (
    operation_indicator, poid_id0, group_obj_id0, account_no, account_type, residence_flag, incorporated_flag, business_type, actg_cycle_dom,
    billing_status, exempt_from_collections, bal_grp_obj_id0, last_bill_ts, payinfo_obj_id0, status, scenario_obj_id0, cust_seg_list,
    created_ts, commit_ts, mod_ts)
SELECT CASE WHEN id > {target_rows} THEN 'I' WHEN n % 20 = 7 THEN 'D' ELSE 'U' END,
       id, id % 5000, CASE WHEN n % 50 = 0 THEN '0.0.0.1:' || id ELSE 'ACC-' || id END, '/account', n % 2, n % 3, n % 4, n % 28 + 1,
       n % 5, n % 2, id + 7, timestamp '2024-06-01' + n % 30 * interval '1 day', id + 11, 10100 + n % 3, n % 17,
       'consumer,region-' || n % 9, timestamp '2020-01-01' + n % 1000 * interval '1 day', timestamp '2024-06-30 11:30',
       timestamp '2024-06-30 11:00' + n % 1800 * interval '1 second'
FROM (SELECT n, CASE WHEN n <= {existing} THEN 1 + (n - 1)::bigint * {target_rows} / {existing} ELSE {target_rows} + n - {existing} END AS id
      FROM generate_series(1, {rows}) AS n) AS staged
ORDER BY hashint8(id);

ALTER TABLE edw_ods_stg.stg_sm_account ADD PRIMARY KEY (poid_id0);
