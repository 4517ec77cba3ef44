Events go to Kafka, and scripts publish there (event_kafka, kafka_publish).
