-- What a person would write instead of the job.
INSERT INTO edw_ods.account_single (
    acct_id, acct_grp_id, acct_nbr, acct_grp_type_cd, acct_class_nm, is_tax_trtd_ind, is_geo_inc_ind, is_busns_acct_ind, acct_cycle_dmn_id,
    blng_sts_cd, is_xmpt_from_clctn_ind, bal_grp_id, is_acct_spnsrd_ind, last_billd_ts, pay_info_id, acct_sts_cd, scnrio_id,
    cust_sgmnt_list_txt, acct_crtd_dt, acct_update_dt, update_ts, create_ts)
SELECT poid_id0, group_obj_id0, CASE WHEN account_no LIKE '%:%' THEN CAST(poid_id0 AS varchar(60)) ELSE account_no END, '', account_type,
       CASE WHEN residence_flag = 0 THEN 'N' ELSE 'Y' END, CASE WHEN incorporated_flag = 0 THEN 'N' ELSE 'Y' END,
       CASE WHEN business_type = 0 THEN 'N' ELSE 'Y' END, actg_cycle_dom, billing_status,
       CASE WHEN exempt_from_collections = 0 THEN 'N' ELSE 'Y' END, bal_grp_obj_id0, '', last_bill_ts, payinfo_obj_id0,
       CAST(status AS varchar(20)), scenario_obj_id0, cust_seg_list, CAST(created_ts AS date), CAST(commit_ts AS date), mod_ts,
       CURRENT_TIMESTAMP(0)
FROM edw_ods_stg.stg_sm_account
WHERE operation_indicator IN ('I', 'U')
ON CONFLICT (acct_id) DO UPDATE SET acct_sts_cd = excluded.acct_sts_cd, update_ts = CURRENT_TIMESTAMP(0);
