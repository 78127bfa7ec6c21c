"""Words of SQL behind which a bracket may stand in a statement that only reads."""

from __future__ import annotations

from typing import Final

_KEYWORDS: Final = """
    all and any array as between both by case check coalesce cross cube current_date current_time current_timestamp
    distinct else end except exists extract filter for from full greatest group grouping groups having ilike in inner
    intersect interval into is isnull join lateral leading least left like limit localtime localtimestamp materialized
    natural not notnull nullif offset on only or order over overlaps overlay partition position range recursive right
    rollup row rows select sets similar some substring symmetric table tablesample then to trailing treat trim union
    unnest using values when where window with within
    bit bpchar char character dec decimal float int numeric precision time timestamp timestamptz varbit varchar varying
"""
#: Functions of PostgreSQL that change nothing (its manual, chapter 9).
_FUNCTIONS: Final = """
    count sum avg min max every bool_and bool_or string_agg array_agg json_agg jsonb_agg json_object_agg
    jsonb_object_agg stddev variance percentile_cont percentile_disc mode corr
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
    abs ceil ceiling floor round trunc mod power sqrt exp ln log sign pi random degrees radians width_bucket
    length char_length octet_length lower upper initcap btrim ltrim rtrim replace translate lpad rpad repeat reverse
    split_part strpos substr starts_with concat concat_ws format md5 sha256 encode decode chr ascii quote_ident
    quote_literal regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
    string_to_array array_to_string to_char to_date to_number to_timestamp
    now clock_timestamp statement_timestamp transaction_timestamp timeofday age date_part date_trunc date_bin make_date
    make_interval make_timestamp make_timestamptz justify_days justify_hours justify_interval isfinite
    generate_series generate_subscripts array_length array_position array_positions array_append array_prepend
    array_cat array_remove array_replace array_lower array_upper array_ndims cardinality
    to_json to_jsonb row_to_json array_to_json json_build_object jsonb_build_object json_build_array jsonb_build_array
    json_array_elements jsonb_array_elements json_array_elements_text jsonb_array_elements_text json_each jsonb_each
    json_each_text jsonb_each_text json_extract_path jsonb_extract_path json_array_length jsonb_array_length
    json_typeof jsonb_typeof jsonb_set jsonb_insert jsonb_strip_nulls jsonb_pretty jsonb_path_query jsonb_path_exists
    jsonb_path_query_array jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset jsonb_to_record
    jsonb_to_recordset jsonb_object_keys json_object_keys
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline
    lower_inc upper_inc isempty int4range int8range numrange tsrange tstzrange daterange
    gen_random_uuid pg_backend_pid pg_sleep pg_typeof version current_database current_schema current_setting
    to_regclass to_regtype obj_description
"""
PLAIN_CALLS: Final = frozenset((_KEYWORDS + _FUNCTIONS).split())
