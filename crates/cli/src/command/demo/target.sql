-- {table}: {target_rows} accounts, the same ones each time. Indexes come after the rows.

CREATE TABLE edw_ods.{table} (
    acct_id                bigint NOT NULL,
    acct_grp_id            bigint,
    acct_nbr               varchar(60),
    acct_grp_type_cd       varchar(20),
    acct_class_nm          varchar(60),
    is_tax_trtd_ind        varchar(1),
    is_geo_inc_ind         varchar(1),
    is_busns_acct_ind      varchar(1),
    acct_cycle_dmn_id      integer,
    blng_sts_cd            integer,
    is_xmpt_from_clctn_ind varchar(1),
    bal_grp_id             bigint,
    is_acct_spnsrd_ind     varchar(1),
    last_billd_ts          timestamp(0),
    pay_info_id            bigint,
    acct_sts_cd            varchar(20),
    scnrio_id              bigint,
    cust_sgmnt_list_txt    varchar(255),
    acct_crtd_dt           date,
    acct_update_dt         date,
    update_ts              timestamp(0),
    create_ts              timestamp(0)
);

INSERT INTO edw_ods.{table}
SELECT id, id % 5000, 'ACC-' || id, '', '/account', 'Y', 'N', 'N', id % 28 + 1, id % 5, 'N', id + 7, '',
       timestamp '2024-05-01', id + 11, '10100', id % 17, 'consumer,region-' || id % 9, date '2020-01-01', date '2024-05-31',
       timestamp '2024-05-31 11:00', timestamp '2020-01-01 11:00'
FROM generate_series(1, {target_rows}) AS id;

ALTER TABLE edw_ods.{table} ADD PRIMARY KEY (acct_id);
CREATE INDEX ON edw_ods.{table} (acct_nbr);
