Events go to RabbitMQ, and scripts publish there (event_rabbitmq, rabbitmq_publish), each message confirmed by the broker.
