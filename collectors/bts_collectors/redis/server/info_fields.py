"""Fields of INFO that become metrics, under the names that redis_exporter's dashboards use."""

from __future__ import annotations

from bts_exporter import Kind, Metric

# By section of INFO: `field` keeps its name, `field+_bytes` gets a suffix, `field:name` gets another name.
# All get the prefix redis_. A field that a server lacks gives no sample.
_GAUGES = {
    "Server": """
        configured_hz hz io_threads_active process_id uptime_in_seconds
    """,
    "Clients": """
        blocked_clients client_biggest_input_buf client_longest_output_list
        client_recent_max_input_buffer+_bytes client_recent_max_output_buffer+_bytes
        clients_in_timeout_table connected_clients maxclients:max_clients pubsub_clients
        total_blocking_keys total_blocking_keys_on_nokey total_watched_keys tracking_clients
        watching_clients
    """,
    "Memory": """
        active_defrag_running allocator_active+_bytes allocator_allocated+_bytes
        allocator_frag_bytes allocator_frag_ratio allocator_muzzy+_bytes
        allocator_resident+_bytes allocator_rss_bytes allocator_rss_ratio
        lazyfree_pending_objects lazyfreed_objects maxmemory:memory_max_bytes
        mem_aof_buffer+_bytes mem_clients_normal mem_clients_slaves mem_cluster_links+_bytes
        mem_fragmentation_bytes mem_fragmentation_ratio
        mem_not_counted_for_evict:mem_not_counted_for_eviction_bytes
        mem_overhead_db_hashtable_rehashing+_bytes mem_replication_backlog+_bytes
        mem_total_replication_buffers+_bytes number_of_cached_scripts number_of_functions
        number_of_libraries total_system_memory+_bytes used_memory:memory_used_bytes
        used_memory_dataset:memory_used_dataset_bytes
        used_memory_functions:memory_used_functions_bytes used_memory_lua:memory_used_lua_bytes
        used_memory_overhead:memory_used_overhead_bytes used_memory_peak:memory_used_peak_bytes
        used_memory_rss:memory_used_rss_bytes used_memory_scripts:memory_used_scripts_bytes
        used_memory_scripts_eval:memory_used_scripts_eval_bytes
        used_memory_startup:memory_used_startup_bytes
        used_memory_vm_eval:memory_used_vm_eval_bytes
        used_memory_vm_functions:memory_used_vm_functions_bytes
        used_memory_vm_total:memory_used_vm_total
    """,
    "Persistence": """
        aof_base_size+_bytes aof_buffer_length
        aof_current_rewrite_time_sec:aof_current_rewrite_duration_sec aof_current_size+_bytes
        aof_delayed_fsync aof_enabled aof_last_bgrewrite_status aof_last_cow_size+_bytes
        aof_last_rewrite_time_sec:aof_last_rewrite_duration_sec aof_last_write_status
        aof_pending_bio_fsync aof_pending_rewrite aof_rewrite_buffer_length
        aof_rewrite_in_progress aof_rewrite_scheduled async_loading loading:loading_dump_file
        module_fork_in_progress module_fork_last_cow_size rdb_bgsave_in_progress
        rdb_changes_since_last_save rdb_current_bgsave_time_sec:rdb_current_bgsave_duration_sec
        rdb_last_bgsave_status rdb_last_bgsave_time_sec:rdb_last_bgsave_duration_sec
        rdb_last_cow_size+_bytes rdb_last_load_keys_expired:rdb_last_load_expired_keys
        rdb_last_load_keys_loaded:rdb_last_load_loaded_keys
        rdb_last_save_time:rdb_last_save_timestamp_seconds rdb_saves+_total
    """,
    "Stats": """
        active_defrag_hits:defrag_hits active_defrag_key_hits:defrag_key_hits
        active_defrag_key_misses:defrag_key_misses active_defrag_misses:defrag_misses
        current_eviction_exceeded_time+_ms expired_stale_perc:expired_stale_percentage
        instantaneous_eventloop_cycles_per_sec instantaneous_eventloop_duration_usec
        migrate_cached_sockets+_total pubsub_channels pubsub_patterns pubsubshard_channels
        slave_expires_tracked_keys sync_full:replica_resyncs_full
        sync_partial_err:replica_partial_resync_denied
        sync_partial_ok:replica_partial_resync_accepted tracking_total_items tracking_total_keys
        tracking_total_prefixes
    """,
    "Replication": """
        connected_slaves master_repl_offset repl_backlog_active:repl_backlog_is_active
        repl_backlog_first_byte_offset repl_backlog_histlen:repl_backlog_history_bytes
        repl_backlog_size:replication_backlog_bytes second_repl_offset slave_priority
    """,
    "Cluster": """
        cluster_stats_messages_received:cluster_messages_received_total
        cluster_stats_messages_sent:cluster_messages_sent_total
    """,
    "Modules": """
        bf_bloom_capacity_across_objects bf_bloom_num_filters_across_objects
        bf_bloom_num_items_across_objects bf_bloom_num_objects bf_bloom_total_memory_bytes
        json_num_documents json_total_memory_bytes search_bytes_collected:search_collected_bytes
        search_dialect_1 search_dialect_2 search_dialect_3 search_dialect_4
        search_errors_indexing_failures search_gc_bytes_collected:search_gc_collected_bytes
        search_gc_marked_deleted_vectors search_gc_total_docs_not_collected search_global_idle
        search_global_idle_internal search_global_idle_user search_global_total
        search_global_total_internal search_global_total_user search_largest_memory_index+_bytes
        search_number_of_active_indexes search_number_of_active_indexes_indexing
        search_number_of_active_indexes_running_queries search_number_of_attributes
        search_number_of_indexes search_query_queue_size search_smallest_memory_index+_bytes
        search_string_interning_store_size search_total_active_write_threads
        search_total_indexed_documents search_total_num_docs_in_indexes search_used_memory_bytes
        search_used_memory_indexes+_bytes search_used_memory_vector_index+_bytes
        search_vector_externing_hash_extern_errors search_vector_externing_num_lru_entries
        search_writer_queue_size
    """,
    "KeyDB": """
        current_client_thread long_lock_waits+_total server_threads+_total
    """,
    "Tile38": """
        tile38_alloc_bytes:tile38_mem_alloc_bytes tile38_aof_size+_bytes
        tile38_avg_point_size:tile38_avg_item_size_bytes tile38_go_goroutines+_total
        tile38_go_threads:tile38_threads_total tile38_heap_alloc_bytes:tile38_heap_size_bytes
        tile38_heap_released_bytes tile38_http_transport tile38_in_memory_size+_bytes
        tile38_last_gc_time_seconds tile38_max_heap_size+_bytes tile38_next_gc_bytes
        tile38_num_collections+_total tile38_num_hooks+_total tile38_num_objects+_total
        tile38_num_points+_total tile38_pointer_size+_bytes tile38_read_only
        tile38_sys_cpus:tile38_cpus_total
    """,
    "Azure": """
        maxfragmentationmemory_desired_reservation:memory_max_fragmentation_reservation_desired_bytes
        maxfragmentationmemory_reservation:memory_max_fragmentation_reservation_bytes
        maxmemory_desired_reservation:memory_max_reservation_desired_bytes
        maxmemory_reservation:memory_max_reservation_bytes
    """,
}

_COUNTERS = {
    "Stats": """
        acl_access_denied_auth+_total acl_access_denied_channel+_total
        acl_access_denied_cmd+_total acl_access_denied_key+_total
        client_output_buffer_limit_disconnections+_total
        client_query_buffer_limit_disconnections+_total dump_payload_sanitizations
        eventloop_cycles+_total eventloop_duration_cmd_sum+_usec_total
        eventloop_duration_sum+_usec_total evicted_clients+_total evicted_keys+_total
        evicted_scripts+_total expire_cycle_cpu_milliseconds:expire_cycle_cpu_time_ms_total
        expired_keys+_total expired_subkeys+_total
        expired_time_cap_reached_count:expired_time_cap_reached_total
        io_threaded_reads_processed io_threaded_writes_processed keyspace_hits+_total
        keyspace_misses+_total rejected_connections+_total reply_buffer_expands+_total
        reply_buffer_shrinks+_total total_commands_processed:commands_processed_total
        total_connections_received:connections_received_total total_error_replies
        total_eviction_exceeded_time:eviction_exceeded_time_ms_total
        total_net_input_bytes:net_input_bytes_total
        total_net_output_bytes:net_output_bytes_total
        total_net_repl_input_bytes:net_repl_input_bytes_total
        total_net_repl_output_bytes:net_repl_output_bytes_total total_reads_processed
        total_writes_processed unexpected_error_replies
    """,
    "CPU": """
        used_active_time_main_thread:active_time_main_thread_seconds_total
        used_cpu_sys:cpu_sys_seconds_total used_cpu_sys_children:cpu_sys_children_seconds_total
        used_cpu_sys_main_thread:cpu_sys_main_thread_seconds_total
        used_cpu_user:cpu_user_seconds_total
        used_cpu_user_children:cpu_user_children_seconds_total
        used_cpu_user_main_thread:cpu_user_main_thread_seconds_total
    """,
    "Modules": """
        bf_bloom_defrag_hits+_total bf_bloom_defrag_misses+_total search_failure_requests_count
        search_gc_total_cycles:search_gc_cycles_total
        search_gc_total_ms_run:search_gc_run_ms_total search_hnsw_add_exceptions_count
        search_hnsw_create_exceptions_count search_hnsw_modify_exceptions_count
        search_hnsw_remove_exceptions_count search_hnsw_search_exceptions_count
        search_hybrid_requests_count search_inline_filtering_requests_count
        search_rdb_load_failure_cnt:search_rdb_load_failure_count
        search_rdb_load_success_cnt:search_rdb_load_success_count
        search_rdb_save_failure_cnt:search_rdb_save_failure_count
        search_rdb_save_success_cnt:search_rdb_save_success_count
        search_reader_resumed_cnt:search_reader_resumed_count search_successful_requests_count
        search_total_active_queries:search_active_queries_total
        search_total_cycles:search_cycles_total
        search_total_indexing_time:search_indexing_time_ms_total
        search_total_ms_run:search_run_ms_total
        search_total_queries_processed:search_queries_processed_total
        search_total_query_commands:search_query_commands_total
        search_total_query_execution_time_ms:search_query_execution_time_ms_total
        search_vector_externing_deferred_entry_cnt:search_vector_externing_deferred_entry_count
        search_vector_externing_entry_count
        search_vector_externing_generated_value_cnt:search_vector_externing_generated_value_count
        search_vector_externing_lru_promote_cnt:search_vector_externing_lru_promote_count
        search_worker_pool_suspend_cnt:search_worker_pool_suspend_count
        search_writer_resumed_cnt:search_writer_resumed_count
        search_writer_suspension_expired_cnt:search_writer_suspension_expired_count
    """,
    "KeyDB": """
        cached_keys+_total storage_provider_read_hits storage_provider_read_misses
    """,
}


def _metrics(kind: Kind, table: dict[str, str]) -> dict[str, Metric]:
    metrics = {}
    for section, words in table.items():
        for word in words.split():
            field, name = _names(word)
            help_ = f"Field {field} of INFO, {section}."
            metrics[field] = Metric(f"redis_{name}", help_, kind)
    return metrics


def _names(word: str) -> tuple[str, str]:
    field, plus, suffix = word.partition("+")
    if plus:
        return field, field + suffix
    field, _, name = word.partition(":")
    return field, name or field


#: Field of INFO -> the metric with the same value.
PLAIN: dict[str, Metric] = {**_metrics(Kind.GAUGE, _GAUGES), **_metrics(Kind.COUNTER, _COUNTERS)}
